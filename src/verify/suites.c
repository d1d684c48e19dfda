// The suites by their names in meson.build.
#include "verify/suites.h"

#include "verify/verify.h"

#define DECLARE(name) extern const struct eq_check_suite eq_suite_##name;
#define REFER(name) &eq_suite_##name,

EQ_CHECK_SUITES(DECLARE)

const struct eq_check_suite *const eq_check_suites[] = { EQ_CHECK_SUITES(REFER) };
const int eq_check_num_suites = sizeof eq_check_suites / sizeof *eq_check_suites;
