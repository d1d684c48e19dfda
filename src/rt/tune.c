// The table of tuned parameters.
#include "rt/tune.h"

#include <string.h>

struct eq_tuning {
    int num;
    struct entry {
        char key[EQ_TUNE_MAX_KEY];
        int values[EQ_TUNE_MAX_VALUES], num_values;
    } *entries;
};

bool eq_tuning_find(const struct eq_tuning *tuning, const char *key, int *values, int num)
{
    for (int i = 0; tuning && i < tuning->num; i++) {
        const struct entry *entry = &tuning->entries[i];
        if (entry->num_values != num || strcmp(entry->key, key) != 0)
            continue;
        memcpy(values, entry->values, (size_t)num * sizeof *values);
        return true;
    }
    return false;
}
