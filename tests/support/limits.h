// Limits of devices that are not here, imposed on those that are. With EQUIL_TEST_LIMITS set to a name of the table in limits.c
// every device that the test program opens has them where its own are wider; an unknown name ends the program.
#ifndef EQ_TEST_LIMITS_H
#define EQ_TEST_LIMITS_H

#include "rt/rt.h"

// What is imposed; NULL: nothing.
const struct eq_limits *eq_test_limits(void);

#endif
