// Numbers as texts without the calling program's locale, which may write 0,5, and may be changed by another thread meanwhile.
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

void eq_number_from_local(char *text)
{
    static const char own[] = "0123456789+-einfa"; // of numbers, inf and nan: what is between is the point
    char *point = text + strspn(text, own);
    const size_t bytes = strcspn(point, own);
    if (bytes == 0)
        return;
    *point = '.';
    memmove(point + 1, point + bytes, strlen(point + bytes) + 1);
}

bool eq_number_to_local(const char *text, const char *point, char local[EQ_NUMBER_BYTES])
{
    const size_t length = strlen(text), before = strcspn(text, "."), bytes = strlen(point);
    if (text[strspn(text, "0123456789+-.eE")] || length + bytes >= EQ_NUMBER_BYTES)
        return false;
    memcpy(local, text, length + 1);
    if (before == length)
        return true;
    memcpy(local + before, point, bytes);
    memcpy(local + before + bytes, text + before + 1, length - before);
    return true;
}

const char *eq_number_digits(char text[40], int digits, double value)
{
    snprintf(text, 40, "%.*g", digits, value);
    eq_number_from_local(text);
    return text;
}

// The point that strtod() wants now: what is between the digits of 0.5. localeconv() is not for several threads.
static void find_point(char point[EQ_NUMBER_BYTES / 2])
{
    char half[EQ_NUMBER_BYTES / 2];
    snprintf(half, sizeof half, "%.1f", 0.5);
    const size_t bytes = strlen(half) - 2;
    memcpy(point, half + 1, bytes);
    point[bytes] = '\0';
}

bool eq_number_read(const char *text, double *value)
{
    char point[EQ_NUMBER_BYTES / 2], local[EQ_NUMBER_BYTES], *end;
    find_point(point);
    if (!eq_number_to_local(text, point, local))
        return false;
    const double number = strtod(local, &end);
    if (end == local || *end)
        return false;
    *value = number;
    return true;
}

const char *eq_number_text(char text[40], double value)
{
    for (int digits = 6; digits <= 17; digits++) {
        double again;
        eq_number_digits(text, digits, value);
        if (eq_number_read(text, &again) && again == value)
            break;
    }
    return text;
}
