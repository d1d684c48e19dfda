// Measuring candidates.
//
// The reference is the call without any tuning and without Winograd's transform; sampled elements of its result are compared
// with sums in double precision (eq_op.expect). A candidate runs on outputs and workspace that are NaN all over, with canaries
// around them: what it leaves unwritten, writes beyond, or gets wrong by more than RELATIVE of the largest value shows, and so
// does a kernel that is fast because it does nothing. Inputs must stay as they were; they are values of the device's precision,
// so that matrix units multiply them as they are. After its timing a winner is verified
// again. Candidates are timed in turn with the best so far: whatever else the machine does meets both.
#include "op/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CANARY = 64, SAMPLES = 96, MIN_ROUNDS = 5, MAX_ROUNDS = 25, SCREEN_ROUNDS = 2, MAX_REPEATS = 64 };
// Winograd F(4x4) differs from the direct sum by about 1e-5 of the largest value, a missing product by 1e-3 or more.
static const double RELATIVE = 5e-5, SAMPLE_RELATIVE = 1e-5;
static const double WIN = 0.98, HOPELESS = 1.2, MIN_SECONDS = 2e-3;
static const uint32_t poison_bits = 0x7fc0beefu; // a NaN

struct session {
    const struct eq_tune_job *job;
    const struct eq_tunable *tunable;
    float *plain[EQ_MAX_OPERANDS], *stored[EQ_MAX_OPERANDS]; // inputs
    struct eq_buffer *inputs[EQ_MAX_OPERANDS];
    float *want[EQ_MAX_OPERANDS]; // results of the reference, as stored
    double bound[EQ_MAX_OPERANDS];
};

// A way to compute the call, ready to run.
struct trial {
    struct eq_call call;
    struct eq_buffer *outputs[EQ_MAX_OPERANDS]; // CANARY, the tensor, CANARY
    struct eq_list *list, *poison;
};

static float poison_value(void)
{
    float value;
    memcpy(&value, &poison_bits, sizeof value);
    return value;
}

// ---- trials

static void close_trial(struct trial *trial)
{
    eq_list_destroy(&trial->list);
    eq_list_destroy(&trial->poison);
    for (int o = 0; o < EQ_MAX_OPERANDS; o++)
        eq_buffer_destroy(&trial->outputs[o]);
}

static eq_status shape_trial(const struct session *s, struct trial *trial)
{
    struct eq_call *call = &trial->call;
    *call = *s->job->call;
    call->target = &s->job->device->target;
    EQ_TRY(call->op->shape(call));
    for (int o = 0; o < call->num_outputs; o++) {
        const struct eq_tensor *given = &s->job->call->output[o];
        if (call->output[o].form == EQ_FORM_BLOCKED)
            call->output[o].halo = given->halo;
        EQ_REQUIRE(call->output[o].dtype == EQ_F32, EQ_ERR_UNSUPPORTED, "output %d of %s is no f32", o, call->op->name);
        EQ_REQUIRE(!s->job->is_result[o] || eq_tensor_elems(&call->output[o]) == eq_tensor_elems(given), EQ_ERR_SHAPE,
                   "output %d of %s has %zu elements, not %zu", o, call->op->name, eq_tensor_elems(&call->output[o]),
                   eq_tensor_elems(given));
    }
    for (int i = 0; i < call->num_inputs && call->op->halo; i++)
        EQ_REQUIRE(!call->has[i] || call->op->halo(call, i) <= call->input[i].halo, EQ_ERR_UNSUPPORTED,
                   "input %d of %s needs a wider halo", i, call->op->name);
    return EQ_OK;
}

static eq_status emit_trial(const struct session *s, struct trial *trial)
{
    struct eq_device *device = s->job->device;
    struct eq_ref in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    EQ_TRY(shape_trial(s, trial));
    EQ_TRY(eq_list_create(device, &trial->list));
    EQ_TRY(eq_list_create(device, &trial->poison));
    for (int i = 0; i < trial->call.num_inputs; i++)
        in[i] = trial->call.has[i] ? eq_ref_at(s->inputs[i], 0) : EQ_REF_NONE;
    for (int o = 0; o < trial->call.num_outputs; o++) {
        const size_t elems = eq_tensor_elems(&trial->call.output[o]) + 2 * CANARY;
        EQ_TRY(eq_buffer_create(device, 4 * elems, &trial->outputs[o]));
        EQ_TRY(eq_list_fill(trial->poison, eq_ref_at(trial->outputs[o], 0), poison_value(), elems));
        out[o] = eq_ref_at(trial->outputs[o], CANARY);
    }
    return trial->call.op->emit(trial->list, &trial->call, in, out);
}

// values NULL: the reference.
static eq_status open_trial(const struct session *s, const int *values, struct trial *trial)
{
    struct eq_target *target = &s->job->device->target;
    const struct eq_target before = *target;
    struct eq_tuning *tuning;
    *trial = (struct trial){ .list = NULL };
    EQ_TRY(eq_tuning_create(&tuning));
    eq_status status = values ? eq_tuning_merge(tuning, s->job->tuning) : EQ_OK;
    if (status == EQ_OK && values)
        status = eq_tuning_set(tuning, s->tunable->key, values, s->tunable->num_values, "");
    target->tuning = tuning;
    target->use_winograd = before.use_winograd && values;
    if (status == EQ_OK)
        status = emit_trial(s, trial);
    if (status == EQ_OK && values && eq_tuning_entry(tuning, s->tunable->key)->is_reported)
        status = eq_fail(EQ_ERR_UNSUPPORTED, "%s: values that it cannot have", s->tunable->key); // others would be measured
    *target = before; // the list has what it needs
    eq_tuning_destroy(&tuning);
    if (status != EQ_OK)
        close_trial(trial);
    return status;
}

// From step `first` on: all of them, or what evaluation runs.
static eq_status run_from(const struct session *s, struct trial *trial, int first, int repeats, double *seconds)
{
    const int64_t start = eq_clock_ns();
    for (int r = 0; r < repeats; r++)
        EQ_TRY(eq_list_run_range(trial->list, first, eq_list_length(trial->list)));
    EQ_TRY(eq_device_finish(s->job->device));
    *seconds = (double)(eq_clock_ns() - start) * 1e-9 / repeats;
    return EQ_OK;
}

static eq_status run(const struct session *s, struct trial *trial, int repeats, double *seconds)
{
    return run_from(s, trial, eq_list_num_preparing(trial->list), repeats, seconds);
}

// ---- verification

static eq_status check_canaries(const float *canaries, const char *where, int output)
{
    for (int k = 0; k < CANARY; k++)
        EQ_REQUIRE(memcmp(&canaries[k], &poison_bits, 4) == 0, EQ_ERR_NUMERIC, "it writes %s output %d", where, output);
    return EQ_OK;
}

static eq_status check_result(const struct session *s, int output, const float *got, size_t elems)
{
    const float *want = s->want[output];
    const double bound = s->bound[output];
    for (size_t k = 0; k < elems; k++)
        if (!(fabs((double)got[k] - (double)want[k]) <= bound))
            return eq_fail(EQ_ERR_NUMERIC, "element %zu of %zu of output %d is %g, not %g", k, elems, output, (double)got[k],
                           (double)want[k]);
    return EQ_OK;
}

// Reads an output with its canaries into a new `words`.
static eq_status read_output(const struct trial *trial, int output, float **words)
{
    const size_t elems = eq_tensor_elems(&trial->call.output[output]) + 2 * CANARY;
    *words = eq_malloc(elems, sizeof **words);
    if (!*words)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_ref_read(eq_ref_at(trial->outputs[output], 0), *words, elems, 4);
    if (status == EQ_OK)
        status = check_canaries(*words, "before", output);
    if (status == EQ_OK)
        status = check_canaries(*words + elems - CANARY, "beyond", output);
    if (status != EQ_OK) {
        free(*words);
        *words = NULL;
    }
    return status;
}

static eq_status check_inputs(const struct session *s)
{
    const struct eq_call *call = s->job->call;
    for (int i = 0; i < call->num_inputs; i++) {
        if (!call->has[i])
            continue;
        const size_t elems = eq_tensor_elems(&call->input[i]);
        float *now = eq_malloc(elems, sizeof *now);
        eq_status status = now ? eq_ref_read(eq_ref_at(s->inputs[i], 0), now, elems, 4) : EQ_ERR_HOST_MEMORY;
        if (status == EQ_OK && memcmp(now, s->stored[i], 4 * elems) != 0) {
            status = eq_fail(EQ_ERR_NUMERIC, "it writes input %d", i);
            char reason[80];
            snprintf(reason, sizeof reason, "%s", eq_last_error());
            const eq_status repaired = eq_ref_write(eq_ref_at(s->inputs[i], 0), s->stored[i], elems, 4);
            status = repaired == EQ_OK ? eq_fail(EQ_ERR_NUMERIC, "%s", reason) : repaired;
        }
        free(now);
        EQ_TRY(status);
    }
    return EQ_OK;
}

// Runs it once from poisoned memory; *seconds is the time of that run.
static eq_status verify(const struct session *s, struct trial *trial, double *seconds)
{
    EQ_TRY(eq_list_run(trial->poison));
    EQ_TRY(eq_device_finish(s->job->device));
    EQ_TRY(run_from(s, trial, 0, 1, seconds));
    for (int o = 0; o < trial->call.num_outputs; o++) {
        float *words;
        EQ_TRY(read_output(trial, o, &words));
        eq_status status =
            s->job->is_result[o] ? check_result(s, o, words + CANARY, eq_tensor_elems(&trial->call.output[o])) : EQ_OK;
        free(words);
        EQ_TRY(status);
    }
    return check_inputs(s);
}

// ---- the session's inputs and reference

static eq_status make_inputs(struct session *s)
{
    const struct eq_call *call = s->job->call;
    for (int i = 0; i < call->num_inputs; i++) {
        const struct eq_tensor *t = &call->input[i];
        if (!call->has[i])
            continue;
        EQ_REQUIRE(t->dtype == EQ_F32, EQ_ERR_UNSUPPORTED, "input %d of %s is no f32", i, call->op->name);
        const size_t logical = eq_tensor_logical(t);
        s->plain[i] = eq_malloc(logical, sizeof(float));
        s->stored[i] = eq_malloc(eq_tensor_elems(t), sizeof(float));
        if (!s->plain[i] || !s->stored[i])
            return EQ_ERR_HOST_MEMORY;
        const uint64_t key = eq_random_key(0, 0, (uint64_t)i, "tune");
        for (size_t k = 0; k < logical; k++)
            s->plain[i][k] = eq_precision_round(s->job->device->target.precision, (float)(2 * eq_random_unit(key, k) - 1));
        eq_tensor_pack(t, s->plain[i], s->stored[i]);
        EQ_TRY(eq_buffer_create(s->job->device, eq_tensor_bytes(t), &s->inputs[i]));
        EQ_TRY(eq_ref_write(eq_ref_at(s->inputs[i], 0), s->stored[i], eq_tensor_elems(t), 4));
    }
    return EQ_OK;
}

// Sampled elements of output 0 against double precision.
static eq_status check_samples(const struct session *s, const struct eq_call *call, const float *stored)
{
    if (!call->op->expect)
        return EQ_OK;
    const size_t num = eq_tensor_logical(&call->output[0]);
    float *plain = eq_malloc(num, sizeof *plain);
    if (!plain)
        return EQ_ERR_HOST_MEMORY;
    eq_tensor_unpack(&call->output[0], stored, plain);
    eq_status status = EQ_OK;
    const uint64_t key = eq_random_key(0, 0, 0, "sample");
    for (size_t k = 0; k < SAMPLES && status == EQ_OK; k++) {
        const size_t at = k == 0 ? 0 : k == 1 ? num - 1 : (size_t)(eq_random_bits(key, k) % num);
        double magnitude = 0;
        const double value = call->op->expect(call, (const float *const *)s->plain, at, &magnitude);
        if (!(fabs(value - (double)plain[at]) <= SAMPLE_RELATIVE * magnitude))
            status = eq_fail(EQ_ERR_NUMERIC,
                             "%s: element %zu of %zu is %g by default, in double precision %g: the device computes wrongly, "
                             "and nothing can be tuned on it",
                             call->op->name, at, num, (double)plain[at], value);
    }
    free(plain);
    return status;
}

static eq_status keep_result(struct session *s, const struct trial *trial, int output)
{
    const size_t elems = eq_tensor_elems(&trial->call.output[output]);
    EQ_TRY(read_output(trial, output, &s->want[output]));
    memmove(s->want[output], s->want[output] + CANARY, elems * sizeof(float));
    double largest = 0;
    for (size_t k = 0; k < elems; k++) {
        const double value = fabs((double)s->want[output][k]);
        EQ_REQUIRE(isfinite(value), EQ_ERR_NUMERIC, "%s: element %zu of %zu of output %d is %g by default",
                   trial->call.op->name, k, elems, output, (double)s->want[output][k]);
        largest = value > largest ? value : largest;
    }
    s->bound[output] = RELATIVE * largest;
    return output == 0 ? check_samples(s, &trial->call, s->want[0]) : EQ_OK;
}

static eq_status make_reference(struct session *s)
{
    struct trial trial;
    double seconds;
    EQ_TRY(open_trial(s, NULL, &trial));
    eq_status status = eq_list_run(trial.poison);
    if (status == EQ_OK)
        status = run_from(s, &trial, 0, 1, &seconds);
    for (int o = 0; o < trial.call.num_outputs && status == EQ_OK; o++)
        if (s->job->is_result[o])
            status = keep_result(s, &trial, o);
    close_trial(&trial);
    return status == EQ_OK ? check_inputs(s) : status;
}

static void close_session(struct session *s)
{
    for (int i = 0; i < EQ_MAX_OPERANDS; i++) {
        eq_buffer_destroy(&s->inputs[i]);
        free(s->plain[i]);
        free(s->stored[i]);
        free(s->want[i]);
    }
}

// ---- timing

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, int num)
{
    qsort(values, (size_t)num, sizeof *values, by_value);
    return num % 2 ? values[num / 2] : (values[num / 2 - 1] + values[num / 2]) / 2;
}

struct duel {
    double seconds[2]; // medians of a and b
    bool b_wins;
};

// a and b in turn, who begins changes every round. b wins by its median and by three rounds of four.
static eq_status fight(const struct session *s, struct trial *a, struct trial *b, double first_seconds, int max_rounds,
                       struct duel *duel)
{
    const double budget = s->job->seconds > 0 ? s->job->seconds : 1;
    const double wanted = first_seconds > 0 ? ceil(MIN_SECONDS / first_seconds) : MAX_REPEATS;
    const int repeats = wanted < 1 ? 1 : wanted > MAX_REPEATS ? MAX_REPEATS : (int)wanted;
    double times[2][MAX_ROUNDS], spent = 0;
    int rounds = 0, wins = 0;
    while (rounds < max_rounds && (rounds < MIN_ROUNDS || spent < budget)) {
        const int first = rounds % 2;
        for (int k = 0; k < 2; k++) {
            const int who = k ? 1 - first : first;
            EQ_TRY(run(s, who ? b : a, repeats, &times[who][rounds]));
            spent += times[who][rounds] * repeats;
        }
        wins += times[1][rounds] < times[0][rounds];
        rounds++;
        if (rounds == SCREEN_ROUNDS && times[1][0] > HOPELESS * times[0][0] && times[1][1] > HOPELESS * times[0][1])
            break;
    }
    duel->seconds[0] = median(times[0], rounds);
    duel->seconds[1] = median(times[1], rounds);
    duel->b_wins = rounds >= MIN_ROUNDS && duel->seconds[1] < WIN * duel->seconds[0] && 4 * wins >= 3 * rounds;
    return EQ_OK;
}

// ---- the choice

static void reject(struct session *s, int candidate, struct eq_tune_outcome *outcome)
{
    char values[96] = "";
    size_t at = 0;
    for (int v = 0; v < s->tunable->num_values && at < sizeof values; v++)
        at += (size_t)snprintf(values + at, sizeof values - at, " %d", s->tunable->candidates[candidate][v]);
    snprintf(outcome->rejected, sizeof outcome->rejected, "%.90s: %.100s", values, eq_last_error());
    outcome->num_rejected++;
    eq_log(EQ_LOG_WARNING, "tuning %s: candidate%s is rejected: %s", s->tunable->key, values, eq_last_error());
}

// Whether the error is the candidate's own, and not that of the machine.
static bool is_own(eq_status status)
{
    return status != EQ_OK && status != EQ_ERR_HOST_MEMORY && status != EQ_ERR_INTERRUPTED;
}

// The candidate against the best so far, which it replaces when it wins.
static eq_status try_candidate(struct session *s, int candidate, struct trial *best, struct trial *initial,
                               struct eq_tune_outcome *outcome)
{
    struct trial trial;
    struct duel duel = { .b_wins = false };
    double seconds;
    eq_status status = open_trial(s, s->tunable->candidates[candidate], &trial);
    if (status == EQ_OK) {
        status = verify(s, &trial, &seconds);
        if (status == EQ_OK)
            status = run(s, &trial, 1, &seconds); // warm
        if (status == EQ_OK)
            status = fight(s, best->list ? best : initial, &trial, outcome->seconds, MAX_ROUNDS, &duel);
        if (status == EQ_OK && duel.b_wins)
            status = verify(s, &trial, &seconds);
    }
    if (is_own(status)) {
        reject(s, candidate, outcome);
        close_trial(&trial);
        return EQ_OK;
    }
    if (status != EQ_OK || !duel.b_wins) {
        close_trial(&trial);
        return status;
    }
    close_trial(best);
    *best = trial;
    outcome->candidate = candidate;
    outcome->seconds = duel.seconds[1];
    return EQ_OK;
}

static eq_status choose(struct session *s, struct trial *initial, struct trial *best, struct eq_tune_outcome *outcome)
{
    const struct eq_tune_job *job = s->job;
    double seconds;
    struct duel duel;
    EQ_TRY(make_inputs(s));
    EQ_TRY(make_reference(s));
    EQ_TRY(open_trial(s, s->tunable->candidates[0], initial));
    EQ_TRY(verify(s, initial, &seconds));
    EQ_TRY(run(s, initial, 1, &seconds));
    outcome->seconds = outcome->default_seconds = seconds;
    for (int c = 1; c < s->tunable->num_candidates; c++) {
        if (job->go_on && !job->go_on(job->user, c, s->tunable->num_candidates))
            return eq_fail(EQ_ERR_INTERRUPTED, "stopped while %s was measured", s->tunable->key);
        const eq_status admitted = job->admit ? job->admit(job->user, c) : EQ_OK;
        if (admitted == EQ_ERR_BUILD)
            reject(s, c, outcome);
        else
            EQ_TRY(admitted == EQ_OK ? try_candidate(s, c, best, initial, outcome) : admitted);
    }
    // With many candidates one may have won by luck: the winner once more against the default.
    EQ_TRY(fight(s, initial, best->list ? best : initial, seconds, best->list ? MAX_ROUNDS : MIN_ROUNDS, &duel));
    outcome->default_seconds = duel.seconds[0];
    outcome->seconds = duel.seconds[1];
    if (best->list && !duel.b_wins)
        outcome->candidate = 0;
    if (outcome->candidate == 0)
        outcome->seconds = outcome->default_seconds;
    return EQ_OK;
}

eq_status eq_tune_choice(const struct eq_tune_job *job, const struct eq_tunable *tunable, struct eq_tune_outcome *outcome)
{
    struct session session = { .job = job, .tunable = tunable };
    struct trial initial = { .list = NULL }, best = { .list = NULL };
    *outcome = (struct eq_tune_outcome){ .candidate = 0 };
    EQ_REQUIRE(tunable->num_candidates >= 1, EQ_ERR_ARGUMENT, "%s: no candidates", tunable->key);
    eq_status status = choose(&session, &initial, &best, outcome);
    close_trial(&initial);
    close_trial(&best);
    close_session(&session);
    return status;
}

eq_status eq_tune_takes(const struct eq_tune_job *job, const struct eq_tunable *tunable, const int *values, bool *takes)
{
    struct session session = { .job = job, .tunable = tunable };
    struct trial trial = { .list = NULL };
    eq_status status = make_inputs(&session);
    if (status == EQ_OK) {
        status = open_trial(&session, values, &trial);
        *takes = status == EQ_OK;
        if (is_own(status) && status != EQ_ERR_DEVICE_MEMORY && status != EQ_ERR_DEVICE)
            status = EQ_OK; // the values', not the machine's
    }
    close_trial(&trial);
    close_session(&session);
    return status;
}

// ---- trying alone

static eq_status try_once(const struct session *s, int candidate)
{
    struct trial trial;
    double seconds;
    EQ_REQUIRE(candidate < s->tunable->num_candidates, EQ_ERR_ARGUMENT, "%s: candidate %d of %d", s->tunable->key, candidate,
               s->tunable->num_candidates);
    if (open_trial(s, s->tunable->candidates[candidate], &trial) != EQ_OK) {
        eq_log(EQ_LOG_INFO, "%s: candidate %d: %s", s->tunable->key, candidate, eq_last_error());
        return EQ_OK;
    }
    const eq_status status = run_from(s, &trial, 0, 1, &seconds);
    close_trial(&trial);
    return status;
}

eq_status eq_tune_try(const struct eq_tune_job *job, const struct eq_tunable *tunable, int (*next)(void *user), void *user)
{
    struct session session = { .job = job, .tunable = tunable };
    eq_status status = make_inputs(&session);
    for (int candidate; status == EQ_OK && (candidate = next(user)) >= 0;)
        status = try_once(&session, candidate);
    close_session(&session);
    return status;
}
