/*
 * What a training promises when something goes wrong: all or nothing. The model is called "net" and trains; where it chooses
 * its channels, a session that has not trained yet is tried too.
 */
#include "net.h"

#include <string.h>

#include "check.h"

enum { SAMPLES = 6, MOST = 300, BYTES = NET_STATE_BYTES };
enum { SUMS = NET_CLASSES * NET_FEATURES * 2, SHOTS = NET_CLASSES * 2 };

static _Alignas(TT_ALIGNMENT) uint8_t arena[NET_REGION0_BYTES];
static net_session session;
static int8_t images[SAMPLES][NET_INPUT_BYTES];
static int32_t labels[MOST];

/* All that a session knows. */
typedef struct knowledge {
    uint8_t state[BYTES], sums[SUMS], shots[SHOTS];
} knowledge;

static void remember(knowledge *k)
{
    const tt_model *const model = session.core.model;
    memset(k, 0, sizeof *k);
    memcpy(k->state, session.core.regions[model->state_region] + model->state_offset, model->state_bytes);
    memcpy(k->sums, session.core.classes.sums, SUMS);
    memcpy(k->shots, session.core.classes.shots, SHOTS);
}

static void restore(const knowledge *k)
{
    const tt_model *const model = session.core.model;
    memcpy(session.core.regions[model->state_region] + model->state_offset, k->state, model->state_bytes);
    memcpy(session.core.classes.sums, k->sums, SUMS);
    memcpy(session.core.classes.shots, k->shots, SHOTS);
}

static int knows(const knowledge *k)
{
    static knowledge now;
    remember(&now);
    return memcmp(&now, k, sizeof now) == 0;
}

static int knows_deltas(const knowledge *k)
{
    static knowledge now;
    remember(&now);
    return memcmp(now.state, k->state, sizeof now.state) == 0;
}

/* --- A support set that fails ---------------------------------------------------------------- */

static uint32_t asked;    /* inputs that were handed out */
static uint32_t fails_at; /* the input that cannot be had; 0: all can */
static uint32_t fails;    /* how often */

static tt_status get(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label)
{
    (void)user, (void)epoch;
    *label = labels[index];
    if (input == NULL) {
        return TT_OK;
    }
    if (++asked >= fails_at && fails > 0) {
        fails--;
        return TT_ERR_STORAGE;
    }
    memcpy(input, images[index % SAMPLES], NET_INPUT_BYTES);
    return TT_OK;
}

static uint32_t stops_at; /* the step after which the application stops; 0: none */

static int progress(void *user, const tt_progress *at)
{
    (void)user;
    return at->epoch * at->samples + at->sample + 1 == stops_at;
}

static tt_status train(uint32_t count, float rate, const tt_cache *cache)
{
    const tt_samples samples = { count, get, NULL };
    const tt_train_options options = { 3, rate, 1, cache };
    asked = 0;
    return net_train(&session, &options, &samples, progress, NULL);
}

static tt_status try(uint32_t at, uint32_t times)
{
    fails_at = at;
    fails = times;
    const tt_status status = train(SAMPLES, 0.2f, NULL);
    fails = 0;
    return status;
}

/* --- Promises -------------------------------------------------------------------------------- */

static void what_can_be_known_before_is_looked_at_first(const knowledge *before)
{
    const float none = 0.0f;
    const float wrong[] = { -0.1f, 1.0f, 2.0f, 1.0f / none, -1.0f / none, none / none };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(train(SAMPLES, wrong[i], NULL) == TT_ERR_ARGUMENT);
    }
    for (uint32_t i = 0; i < SAMPLES; i++) {
        const int32_t label = labels[i];
        labels[i] = i % 2 ? NET_CLASSES : -1;
        CHECK(train(SAMPLES, 0.2f, NULL) == TT_ERR_LABEL);
        labels[i] = label;
    }
    CHECK(train(MOST, 0.2f, NULL) == TT_ERR_FULL); /* the others are all of class 0 */
    const tt_cache caches[] = { { NULL, NULL, NULL, 1 }, { .copies = 0 } };
    for (unsigned i = 0; i < sizeof caches / sizeof caches[0]; i++) {
        CHECK(train(SAMPLES, 0.2f, &caches[i]) == TT_ERR_ARGUMENT);
    }
    CHECK(train(0, 0.2f, NULL) == TT_ERR_ARGUMENT);
    CHECK(asked == 0 && knows(before));
}

static void an_enrolled_class_may_not_be_left_out(const knowledge *before)
{
    CHECK(net_enroll(&session, images[0], NET_CLASSES - 1) == TT_OK);
    knowledge with;
    remember(&with);
    CHECK(train(SAMPLES, 0.2f, NULL) == TT_ERR_MISSING);
    CHECK(asked == 0 && knows(&with));
    restore(before);
}

/* Stops of an application are what failures are compared with. */
static void failures_change_nothing_or_stop_at_a_step(const knowledge *before, uint32_t passes)
{
    static knowledge stopped, old_prototypes;
    const uint32_t first = passes * SAMPLES; /* inputs in front of the first step */
    for (uint32_t at = 1; at <= first; at++) {
        CHECK(try(at, 1) == TT_ERR_STORAGE);
        CHECK(knows(before));
    }
    for (uint32_t step = 1; step < SAMPLES; step++) {
        stops_at = step;
        CHECK(try(0, 0) == TT_ERR_CANCELLED);
        remember(&stopped);
        stops_at = 0;
        restore(before);
        CHECK(try(first + step + 1, 1) == TT_ERR_STORAGE); /* once: prototypes can be computed after it */
        CHECK(knows(&stopped));
        restore(before);
        CHECK(try(first + step + 1, 1000) == TT_ERR_STORAGE); /* and if not, those of the first pass stay */
        CHECK(knows_deltas(&stopped));
        remember(&old_prototypes);
        CHECK(memcmp(old_prototypes.shots, stopped.shots, SHOTS) == 0);
        restore(before);
    }
    CHECK(try(first + SAMPLES + 2, 1000) == TT_ERR_STORAGE); /* while prototypes are recomputed, or in the next epoch */
    tt_result result;
    CHECK(net_infer(&session, images[0], &result) == TT_OK && result.source == TT_FROM_HEAD);
    restore(before);
}

static void clean_images_stay_clean(void)
{
    int8_t image[NET_INPUT_BYTES];
    memcpy(image, images[0], sizeof image);
    net_augment(image, TT_CLEAN, 3, 7);
    CHECK(memcmp(image, images[0], sizeof image) == 0);
    net_augment(image, 0, 3, 7);
    CHECK(memcmp(image, images[0], sizeof image) != 0);
}

int main(void)
{
    static knowledge enrolled, trained;
    uint32_t seed = 1;
    for (uint32_t i = 0; i < SAMPLES * NET_INPUT_BYTES; i++) {
        seed = seed * 1664525u + 1013904223u;
        images[i / NET_INPUT_BYTES][i % NET_INPUT_BYTES] = (int8_t)(seed >> 24);
    }
    for (int32_t i = 0; i < SAMPLES; i++) {
        labels[i] = i % (NET_CLASSES - 1); /* the last class has no samples */
    }
    CHECK(net_init(&session, arena, sizeof arena) == TT_OK);
    clean_images_stay_clean();
    CHECK(net_enroll(&session, images[1], 1) == TT_OK);
    remember(&enrolled);
    what_can_be_known_before_is_looked_at_first(&enrolled);
    /* A session that must choose its channels first runs every sample twice. */
    failures_change_nothing_or_stop_at_a_step(&enrolled, CHOOSES ? 2 : 1);
    CHECK(try(0, 0) == TT_OK);
    remember(&trained);
    what_can_be_known_before_is_looked_at_first(&trained);
    an_enrolled_class_may_not_be_left_out(&trained);
    failures_change_nothing_or_stop_at_a_step(&trained, 1);
    check_end("ok");
}
