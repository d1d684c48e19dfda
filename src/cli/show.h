// Draws an image as text.
#ifndef EQUIL_CLI_SHOW_H
#define EQUIL_CLI_SHOW_H

#include "equil/data.h"

// On stdout, at most `columns` wide: in colour on a terminal (two pixels a character), else in shades of grey made of letters.
void show_image(const struct eq_image *image, int columns);

#endif
