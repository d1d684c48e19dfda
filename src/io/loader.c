// Workers claim positions of the pass in ascending order and put results into a ring; the caller takes them out in the same
// order.
//
// A position may be claimed while it lies less than `ahead` before the caller's, so its place in the ring is free. The limit on
// bytes holds only for positions that the caller does not wait for: else an item larger than the limit would never come. The
// order is copied under the lock at the claim, so eq_loader_start() may change it once no item is being decoded.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/loader.h"

enum { DEFAULT_AHEAD = 64, MAX_THREADS = 256 };
static const size_t default_ahead_bytes = (size_t)256 << 20;

struct place {
    bool is_done;
    struct eq_image image; // empty when status is not EQ_OK
    eq_status status;
    char *reason; // why it could not be read; NULL on no memory
};

struct eq_loader {
    struct eq_loader_params params;
    size_t num_items, ahead;
    size_t *order;      // [num_items]
    struct place *ring; // [ahead] position p lies at p % ahead
    size_t taken;       // positions that the caller is through with
    size_t claimed;     // positions that a worker has begun
    size_t held_bytes;  // of the images in the ring
    size_t num_skipped, num_good;
    bool is_whole; // the pass began at position 0
    char *first_reason;
    int num_busy; // workers that decode
    bool is_stopping;
    pthread_mutex_t lock;
    pthread_cond_t can_claim, has_result; // for the workers; for the caller
    pthread_t *threads;
    int num_threads;
};

static size_t image_bytes(const struct eq_image *image)
{
    return (size_t)image->height * (size_t)image->width * 3;
}

static bool may_claim(const struct eq_loader *loader)
{
    if (loader->claimed >= loader->num_items || loader->claimed >= loader->taken + loader->ahead)
        return false;
    return loader->claimed == loader->taken || loader->held_bytes < loader->params.ahead_bytes;
}

static void decode(const struct eq_loader *loader, size_t item, struct place *place)
{
    *place = (struct place){ .is_done = true };
    place->status = eq_dataset_get(loader->params.dataset, item, &place->image);
    if (place->status != EQ_OK)
        place->reason = strdup(eq_last_error());
}

static void *work(void *user)
{
    struct eq_loader *loader = user;
    pthread_mutex_lock(&loader->lock);
    while (!loader->is_stopping) {
        if (!may_claim(loader)) {
            pthread_cond_wait(&loader->can_claim, &loader->lock);
            continue;
        }
        size_t position = loader->claimed++, item = loader->order[position];
        struct place place;
        loader->num_busy++;
        pthread_mutex_unlock(&loader->lock);
        decode(loader, item, &place);
        pthread_mutex_lock(&loader->lock);
        loader->num_busy--;
        loader->held_bytes += image_bytes(&place.image);
        loader->ring[position % loader->ahead] = place;
        pthread_cond_signal(&loader->has_result);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

eq_status eq_dataset_threads(int *num)
{
    const char *text = eq_option(EQ_OPTION_THREADS);
    long wanted = sysconf(_SC_NPROCESSORS_ONLN);
    wanted = wanted < 1 ? 1 : wanted > MAX_THREADS ? MAX_THREADS : wanted;
    if (text) {
        char *end;
        wanted = strtol(text, &end, 10);
        EQ_REQUIRE(!*end && wanted >= 1 && wanted <= MAX_THREADS, EQ_ERR_ARGUMENT, "%s=%s: 1 to %d threads are possible",
                   eq_option_variable(EQ_OPTION_THREADS), text, MAX_THREADS);
    }
    *num = (int)wanted;
    return EQ_OK;
}

static eq_status choose_threads(const struct eq_loader_params *params, int *num)
{
    const int wanted = params->num_threads;
    if (!wanted)
        return eq_dataset_threads(num);
    EQ_REQUIRE(wanted >= 1 && wanted <= MAX_THREADS, EQ_ERR_ARGUMENT, "%d threads; 1 to %d are possible", wanted, MAX_THREADS);
    *num = wanted;
    return EQ_OK;
}

// Signals are for the program's own threads: a worker that took Ctrl-C would interrupt nothing.
static eq_status start_threads(struct eq_loader *loader, int num)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (loader->num_threads < num && !error) {
        error = pthread_create(&loader->threads[loader->num_threads], NULL, work, loader);
        loader->num_threads += error ? 0 : 1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    EQ_REQUIRE(loader->num_threads > 0, EQ_ERR_HOST_MEMORY, "cannot start a thread to decode images: %s", strerror(error));
    return EQ_OK;
}

static eq_status fill_loader(struct eq_loader *loader)
{
    int num_threads = 0;
    struct eq_loader_params *params = &loader->params;
    EQ_REQUIRE(params->ahead >= 0, EQ_ERR_ARGUMENT, "%d items ahead", params->ahead);
    EQ_TRY(choose_threads(params, &num_threads));
    params->ahead_bytes = params->ahead_bytes ? params->ahead_bytes : default_ahead_bytes;
    loader->ahead = (size_t)(params->ahead ? params->ahead : DEFAULT_AHEAD);
    loader->num_items = eq_dataset_num_items(params->dataset);
    loader->claimed = loader->taken = loader->num_items; // nothing to do before eq_loader_start()
    EQ_ALLOC(loader->order, loader->num_items);
    EQ_ALLOC(loader->ring, loader->ahead);
    EQ_ALLOC(loader->threads, num_threads);
    return start_threads(loader, num_threads);
}

static void clear_place(struct eq_loader *loader, struct place *place)
{
    loader->held_bytes -= image_bytes(&place->image);
    eq_image_free(&place->image);
    free(place->reason);
    *place = (struct place){ 0 };
}

eq_status eq_loader_create(const struct eq_loader_params *params, struct eq_loader **loader)
{
    EQ_ALLOC(*loader, 1);
    (*loader)->params = *params;
    pthread_mutex_init(&(*loader)->lock, NULL);
    pthread_cond_init(&(*loader)->can_claim, NULL);
    pthread_cond_init(&(*loader)->has_result, NULL);
    eq_status status = fill_loader(*loader);
    if (status != EQ_OK)
        eq_loader_destroy(loader);
    return status;
}

void eq_loader_destroy(struct eq_loader **loader)
{
    struct eq_loader *old = *loader;
    if (!old)
        return;
    pthread_mutex_lock(&old->lock);
    old->is_stopping = true;
    pthread_cond_broadcast(&old->can_claim);
    pthread_mutex_unlock(&old->lock);
    for (int i = 0; i < old->num_threads; i++)
        pthread_join(old->threads[i], NULL);
    for (size_t i = 0; old->ring && i < old->ahead; i++)
        clear_place(old, &old->ring[i]);
    pthread_cond_destroy(&old->can_claim);
    pthread_cond_destroy(&old->has_result);
    pthread_mutex_destroy(&old->lock);
    free(old->threads);
    free(old->ring);
    free(old->order);
    free(old->first_reason);
    free(old);
    *loader = NULL;
}

eq_status eq_loader_start(struct eq_loader *loader, uint64_t epoch, size_t position)
{
    EQ_REQUIRE(position <= loader->num_items, EQ_ERR_ARGUMENT, "position %zu of %zu items", position, loader->num_items);
    pthread_mutex_lock(&loader->lock);
    loader->claimed = loader->num_items; // workers finish what they have and find nothing more
    while (loader->num_busy > 0)
        pthread_cond_wait(&loader->has_result, &loader->lock);
    for (size_t i = 0; i < loader->ahead; i++)
        clear_place(loader, &loader->ring[i]);
    if (loader->params.is_shuffled)
        eq_random_permutation(eq_random_key(loader->params.seed, epoch, 0, "order"), loader->order, loader->num_items);
    else
        for (size_t i = 0; i < loader->num_items; i++)
            loader->order[i] = i;
    free(loader->first_reason);
    loader->first_reason = NULL;
    loader->num_skipped = loader->num_good = 0;
    loader->is_whole = position == 0;
    loader->taken = loader->claimed = position;
    pthread_cond_broadcast(&loader->can_claim);
    pthread_mutex_unlock(&loader->lock);
    return EQ_OK;
}

// Takes the result of the caller's position out of the ring.
static void take(struct eq_loader *loader, struct place *place)
{
    pthread_mutex_lock(&loader->lock);
    struct place *from = &loader->ring[loader->taken % loader->ahead];
    while (!from->is_done)
        pthread_cond_wait(&loader->has_result, &loader->lock);
    *place = *from;
    *from = (struct place){ 0 };
    loader->held_bytes -= image_bytes(&place->image);
    loader->taken++;
    pthread_cond_broadcast(&loader->can_claim);
    pthread_mutex_unlock(&loader->lock);
}

static void skip(struct eq_loader *loader, struct place *place)
{
    const char *reason = place->reason ? place->reason : "an image, for which memory is too short to say more";
    eq_log(EQ_LOG_WARNING, "left out: %s", reason);
    loader->num_skipped++;
    if (!loader->first_reason)
        loader->first_reason = eq_strdup(reason);
    free(place->reason);
}

eq_status eq_loader_next(struct eq_loader *loader, struct eq_loaded *loaded)
{
    *loaded = (struct eq_loaded){ 0 };
    while (loader->taken < loader->num_items) {
        struct place place;
        size_t item = loader->order[loader->taken];
        take(loader, &place);
        if (place.status == EQ_ERR_HOST_MEMORY) {
            char name[512];
            eq_status status = place.reason ? eq_fail(EQ_ERR_HOST_MEMORY, "%s", place.reason)
                                            : eq_fail(EQ_ERR_HOST_MEMORY, "%s: out of memory",
                                                      eq_dataset_item_name(loader->params.dataset, item, name, sizeof name));
            free(place.reason);
            return status;
        }
        if (place.status == EQ_OK) {
            loader->num_good++;
            *loaded = (struct eq_loaded){ place.image, item, loader->taken, eq_dataset_label(loader->params.dataset, item) };
            return EQ_OK;
        }
        skip(loader, &place);
    }
    EQ_REQUIRE(loader->num_good > 0 || !loader->is_whole || loader->params.may_be_none, EQ_ERR_FORMAT,
               "none of the %zu images can be read; the first: %s", loader->num_items,
               loader->first_reason ? loader->first_reason : "out of memory");
    return EQ_OK;
}

size_t eq_loader_num_skipped(const struct eq_loader *loader)
{
    return loader->num_skipped;
}
