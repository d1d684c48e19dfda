// A driver that crashes when it is loaded.
#include <signal.h>
#include <stdio.h>

__attribute__((constructor)) static void crash(void)
{
    fprintf(stderr, "no such chip\n");
    raise(SIGSEGV);
}
