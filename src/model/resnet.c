// The paper's ResNets, from the graph API alone.
//
// ImageNet form: 64 channels in the stem, stages of 64-128-256-512 planes; CE over all 64 channels after the stem's batch norm
// (ce1), one in each block of layer1 to layer3 after the last batch norm, none in layer4. SE in every block. CIFAR form (three
// stages): 16 channels in the stem, no ce1, CE or SE in every block. Shortcuts that change shape are 1x1 convolutions with
// batch norm.
#include <string.h>

#include "equil/model.h"
#include "base/base.h"

enum block { BLOCK_PLAIN, BLOCK_CE, BLOCK_BD, BLOCK_IR, BLOCK_SE };

struct arch {
    const char *name;
    bool is_bottleneck;
    int num_stages, depth[4];
};

static const struct arch archs[] = {
    { "resnet18", false, 4, { 2, 2, 2, 2 } }, { "resnet34", false, 4, { 3, 4, 6, 3 } },
    { "resnet50", true, 4, { 3, 4, 6, 3 } },  { "resnet101", true, 4, { 3, 4, 23, 3 } },
    { "resnet20", false, 3, { 3, 3, 3 } },    { "resnet56", false, 3, { 9, 9, 9 } },
};

static const struct {
    const char *prefix;
    enum block block;
} blocks[] = { { "ce-", BLOCK_CE }, { "bd-", BLOCK_BD }, { "ir-", BLOCK_IR }, { "se-", BLOCK_SE } };

static bool find_arch(const char *name, const struct arch **arch, enum block *block)
{
    *block = BLOCK_PLAIN;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (strncmp(name, blocks[i].prefix, 3) == 0) {
            *block = blocks[i].block;
            name += 3;
            break;
        }
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (strcmp(archs[i].name, name) == 0) {
            *arch = &archs[i];
            return true;
        }
    return false;
}

eq_status eq_model_check(const struct eq_model_params *params)
{
    const struct arch *arch;
    enum block block;
    EQ_REQUIRE(params->arch, EQ_ERR_ARGUMENT, "no network was named");
    EQ_REQUIRE(find_arch(params->arch, &arch, &block), EQ_ERR_NOT_FOUND,
               "unknown network '%s'; there are resnet18, resnet34, resnet50, resnet101, resnet20 and resnet56, each also with "
               "ce-, bd-, ir- or se- "
               "before it",
               params->arch);
    EQ_REQUIRE(params->classes >= 2, EQ_ERR_ARGUMENT, "%s: %d classes; it needs at least 2", params->arch, params->classes);
    EQ_REQUIRE(params->act == 0 || params->act == EQ_RELU || params->act == EQ_ELU, EQ_ERR_ARGUMENT,
               "%s: unknown activation %d", params->arch, (int)params->act);
    return EQ_OK;
}

bool eq_model_is_small(const struct eq_model_params *params)
{
    const struct arch *arch;
    enum block block;
    return params->arch && find_arch(params->arch, &arch, &block) && (params->small || arch->num_stages == 3);
}

struct builder {
    struct eq_graph *graph;
    enum eq_act act;
    enum block block; // in the current stage
};

// "prefix.suffix" in a buffer that lives as long as the caller's block.
struct name {
    char text[96];
};
static struct name join(const char *prefix, const char *suffix)
{
    struct name name;
    snprintf(name.text, sizeof name.text, "%.60s%s%.30s", prefix, *prefix ? "." : "", suffix);
    return name;
}

// conv + batch norm, numbered as PyTorch does: conv1 and bn1.
static eq_status conv_norm(const struct builder *b, const char *prefix, const char *conv, const char *norm, eq_value *x,
                           int channels, int kernel, int stride)
{
    struct eq_conv2d_params p = { .out_channels = channels, .kernel_h = kernel, .kernel_w = kernel, .stride_h = stride,
                                  .stride_w = stride,
                                  .pad_h = kernel / 2, .pad_w = kernel / 2 };
    EQ_TRY(eq_graph_conv2d(b->graph, *x, join(prefix, conv).text, &p, x));
    return eq_graph_batch_norm(b->graph, *x, join(prefix, norm).text, NULL, x);
}

static eq_status gate(const struct builder *b, const char *prefix, const char *name, int group, eq_value *x)
{
    static const enum eq_branch branches[] = {
        [BLOCK_CE] = EQ_BRANCH_BOTH, [BLOCK_BD] = EQ_BRANCH_DECORRELATE, [BLOCK_IR] = EQ_BRANCH_REWEIGHT
    };
    if (b->block == BLOCK_PLAIN)
        return EQ_OK;
    if (b->block == BLOCK_SE)
        return eq_graph_squeeze_excite(b->graph, *x, join(prefix, "se").text, NULL, x);
    struct eq_equilibrium_params p = { .group = group, .branch = branches[b->block] };
    return eq_graph_channel_equilibrium(b->graph, *x, join(prefix, name).text, &p, x);
}

static eq_status residual_block(const struct builder *b, const char *prefix, bool is_bottleneck, int planes, int stride,
                                eq_value *x)
{
    eq_value shortcut = *x, y = *x;
    int shape[4], out = is_bottleneck ? 4 * planes : planes;
    EQ_TRY(eq_graph_shape(b->graph, *x, shape, NULL));
    EQ_TRY(conv_norm(b, prefix, "conv1", "bn1", &y, planes, is_bottleneck ? 1 : 3, is_bottleneck ? 1 : stride));
    EQ_TRY(eq_graph_activation(b->graph, y, b->act, &y));
    EQ_TRY(conv_norm(b, prefix, "conv2", "bn2", &y, planes, 3, is_bottleneck ? stride : 1));
    if (is_bottleneck) {
        EQ_TRY(eq_graph_activation(b->graph, y, b->act, &y));
        EQ_TRY(conv_norm(b, prefix, "conv3", "bn3", &y, out, 1, 1));
    }
    EQ_TRY(gate(b, prefix, "ce", 16, &y));
    if (stride != 1 || shape[1] != out)
        EQ_TRY(conv_norm(b, prefix, "downsample.0", "downsample.1", &shortcut, out, 1, stride));
    EQ_TRY(eq_graph_add(b->graph, y, shortcut, &y));
    EQ_TRY(eq_graph_activation(b->graph, y, b->act, x));
    return eq_graph_label(b->graph, *x, prefix); // as in PyTorch, where a module's output goes by the module's name
}

static eq_status stem(struct builder *b, enum block block, bool is_small, bool is_cifar, eq_value *x)
{
    EQ_TRY(conv_norm(b, "", "conv1", "bn1", x, is_cifar ? 16 : 64, is_small ? 3 : 7, is_small ? 1 : 2));
    b->block = is_cifar || block == BLOCK_SE ? BLOCK_PLAIN : block;
    EQ_TRY(gate(b, "", "ce1", 64, x));
    EQ_TRY(eq_graph_activation(b->graph, *x, b->act, x));
    return is_small ? EQ_OK : eq_graph_max_pool(b->graph, *x, &(struct eq_pool_params){ .kernel = 3, .stride = 2,
                                                                                        .pad = 1 }, x);
}

eq_status eq_model_build(struct eq_graph *graph, const struct eq_model_params *params, eq_value x, eq_value *logits)
{
    const struct arch *arch;
    enum block block;
    EQ_TRY(eq_model_check(params));
    find_arch(params->arch, &arch, &block);
    bool is_cifar = arch->num_stages == 3;
    struct builder b = { .graph = graph, .act = params->act ? params->act : EQ_RELU };
    EQ_TRY(stem(&b, block, params->small || is_cifar, is_cifar, &x));
    for (int stage = 0; stage < arch->num_stages; stage++) {
        b.block = block == BLOCK_SE || stage < 3 ? block : BLOCK_PLAIN;
        for (int i = 0; i < arch->depth[stage]; i++) {
            char prefix[32];
            snprintf(prefix, sizeof prefix, "layer%d.%d", stage + 1, i);
            EQ_TRY(residual_block(&b, prefix, arch->is_bottleneck, (is_cifar ? 16 : 64) << stage, i == 0 && stage > 0 ? 2 : 1,
                                  &x));
        }
    }
    EQ_TRY(eq_graph_mean_pool(graph, x, &x));
    return eq_graph_linear(graph, x, "fc", params->classes, logits);
}
