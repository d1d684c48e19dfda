// Metadata of weights files: what they say is understood, what nothing can be made of is refused and named.
#include <string.h>

#include "io/io_test.h"
#include "train/meta.h"

static const struct {
    const char *text; // in the error; NULL: fine
    struct eq_tensors_text texts[4];
} metas[] = {
    { NULL, { { "arch", "resnet20" }, { "classes", "2" }, { "class_names", "[\"a \\\"b\\\"\", \"\\u00e9\"]" } } },
    { "resnet7", { { "arch", "resnet7" }, { "classes", "2" } } },
    { "classes", { { "arch", "resnet20" }, { "classes", "-1" } } },
    { "classes", { { "arch", "resnet20" }, { "classes", "99999999999999" } } },
    { "class_names", { { "arch", "resnet20" }, { "classes", "3" }, { "class_names", "[\"a\", \"b\"]" } } },
    { "class_names", { { "arch", "resnet20" }, { "classes", "2" }, { "class_names", "[1, 2]" } } },
    { "class_names", { { "arch", "resnet20" }, { "classes", "2" }, { "class_names", "{" } } },
    { "size", { { "arch", "resnet20" }, { "classes", "2" }, { "size", "1000000" } } },
    { "std", { { "arch", "resnet20" }, { "classes", "2" }, { "std", "[1, 0, 1]" } } },
    { "mean", { { "arch", "resnet20" }, { "classes", "2" }, { "mean", "[1, 2]" } } },
    { "act \"gelu\"", { { "arch", "resnet20" }, { "classes", "2" }, { "act", "gelu" } } },
};

static void check(const char *text, const struct eq_meta *meta, eq_status status)
{
    ck_assert_int_eq(status, text ? EQ_ERR_FORMAT : EQ_OK);
    if (text) {
        ck_assert_msg(strstr(eq_last_error(), text) != NULL, "\"%s\" is not in \"%s\"", text, eq_last_error());
    } else {
        ck_assert_str_eq(meta->class_names[0], "a \"b\"");
        ck_assert_str_eq(meta->class_names[1], "\303\251");
        ck_assert(meta->form.size == 32 && meta->form.resize == 32);
    }
}

START_TEST(test_meta)
{
    for (size_t i = 0; i < sizeof metas / sizeof *metas; i++) {
        const char *path = io_path("meta.safetensors");
        struct eq_tensors *file;
        struct eq_meta meta;
        size_t num = 0;
        while (num < 4 && metas[i].texts[num].key)
            num++;
        IO_OK(eq_tensors_save(path, NULL, 0, metas[i].texts, num));
        IO_OK(eq_tensors_open(path, &file));
        check(metas[i].text, &meta, eq_meta_read(file, &meta));
        eq_meta_free(&meta);
        eq_tensors_close(&file);
    }
}
END_TEST

IO_TEST_MAIN("meta", test_meta)
