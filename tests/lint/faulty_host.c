// A program with one fault of the host's memory, to see that tests/support/valgrind.sh finds it: clean, leak, uninitialised or
// beyond.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUM = 16 };

int main(int argc, char **argv)
{
    const char *fault = argc > 1 ? argv[1] : "clean";
    volatile int *values = malloc(NUM * sizeof *values);
    if (!values)
        return 2;
    for (int i = 0; i < NUM; i++)
        if (i < NUM - 1 || strcmp(fault, "uninitialised") != 0)
            values[i] = i;
    const int at = strcmp(fault, "beyond") == 0 ? NUM : NUM - 1;
    if (values[at] == 0)
        puts("zero");
    if (strcmp(fault, "leak") == 0)
        values = NULL;
    free((void *)values);
    return 0;
}
