#include "show.h"

#include <stdio.h>
#include <unistd.h>

struct colour {
    int r, g, b;
};

// Mean over the part of the image that cell (x, y) of a grid [rows, columns] covers.
static struct colour cell(const struct eq_image *image, int columns, int rows, int x, int y)
{
    long sum[3] = { 0 }, num = 0;
    int x0 = (int)((long)x * image->width / columns), x1 = (int)((long)(x + 1) * image->width / columns);
    int y0 = (int)((long)y * image->height / rows), y1 = (int)((long)(y + 1) * image->height / rows);
    for (int py = y0; py < (y1 > y0 ? y1 : y0 + 1) && py < image->height; py++)
        for (int px = x0; px < (x1 > x0 ? x1 : x0 + 1) && px < image->width; px++, num++)
            for (int c = 0; c < 3; c++)
                sum[c] += image->pixels[((size_t)py * (size_t)image->width + (size_t)px) * 3 + (size_t)c];
    num = num ? num : 1;
    return (struct colour){ (int)(sum[0] / num), (int)(sum[1] / num), (int)(sum[2] / num) };
}

// The upper half block in the foreground's colour over a background gives two pixels that are nearly square.
static void print_colours(const struct eq_image *image, int columns, int rows)
{
    for (int y = 0; y < rows; y++) {
        printf("  ");
        for (int x = 0; x < columns; x++) {
            struct colour up = cell(image, columns, 2 * rows, x, 2 * y), down = cell(image, columns, 2 * rows, x, 2 * y + 1);
            printf("\033[38;2;%d;%d;%dm\033[48;2;%d;%d;%dm\342\226\200", up.r, up.g, up.b, down.r, down.g, down.b);
        }
        printf("\033[0m\n");
    }
}

static int grey(struct colour c)
{
    return (299 * c.r + 587 * c.g + 114 * c.b) / 1000;
}

// The darkest cell becomes a blank, the brightest the densest letter.
static void print_greys(const struct eq_image *image, int columns, int rows)
{
    static const char shades[] = " .:-=+*#%@";
    int low = 255, high = 0;
    for (int i = 0; i < rows * columns; i++) {
        int value = grey(cell(image, columns, rows, i % columns, i / columns));
        low = value < low ? value : low;
        high = value > high ? value : high;
    }
    int range = high > low ? high - low : 1;
    for (int y = 0; y < rows; y++) {
        printf("  ");
        for (int x = 0; x < columns; x++)
            putchar(shades[(grey(cell(image, columns, rows, x, y)) - low) * 9 / range]);
        putchar('\n');
    }
}

void show_image(const struct eq_image *image, int columns)
{
    columns = image->width < columns ? image->width : columns;
    int rows = (int)((long)columns * image->height / image->width + 1) / 2;
    rows = rows > 0 ? rows : 1;
    if (isatty(STDOUT_FILENO))
        print_colours(image, columns, rows);
    else
        print_greys(image, columns, rows);
}
