#include "tt_choice.h"
#include "tt_port.h"
#include "tt_select.h"
#include "tt_support.h"

/* All samples once, in an order of the epoch's own: (start + i * stride) mod count, stride and count coprime. */
typedef struct order {
    uint32_t start, stride;
} order;

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static order visiting_order(uint32_t count, uint32_t epoch, uint32_t seed)
{
    uint32_t state = seed * 0x9E3779B1u + epoch * 0x85EBCA6Bu + 1u;
    state ^= state >> 15;
    order o = { state % count, 1 + (state >> 8) % count };
    while (common_divisor(o.stride, count) != 1) {
        o.stride++;
    }
    return o;
}

/* --- Training -------------------------------------------------------------------------------- */

static uint8_t *state_of(const tt_session *s)
{
    return s->regions[s->model->state_region] + s->model->state_offset;
}

static int32_t is_usable(const tt_cache *cache, uint32_t samples)
{
    return cache == NULL || (cache->store != NULL && cache->load != NULL && cache->copies != 0 &&
                             cache->copies <= UINT32_MAX / samples - 1); /* slots are numbered */
}

/* Everything that can be known before the first sample runs through the network. */
static tt_status check(const tt_session *s, const tt_train_options *options, const tt_samples *samples)
{
    if (s == NULL || s->model == NULL || options == NULL || samples == NULL || samples->get == NULL ||
        samples->count == 0 || !(options->rate >= 0.0f && options->rate < 1.0f) ||
        !is_usable(options->cache, samples->count)) {
        return TT_ERR_ARGUMENT;
    }
    if (s->model->learning == NULL) {
        return TT_ERR_POLICY;
    }
    const tt_status status = tt_check_samples(s, samples);
    return status != TT_OK || tt_covers_enrolled(s) ? status : TT_ERR_MISSING;
}

/* Prototypes; and where no channels are chosen yet, these, by the same prototypes: no layer has moved since. */
static tt_status begin(tt_session *s, tt_source *from, uint32_t seed)
{
    const tt_selection *const selection = s->model->learning->selection;
    const tt_classes before = s->classes;
    tt_status status = tt_enroll_all(s, from);
    if (status == TT_OK && selection != NULL && !tt_is_chosen(selection, state_of(s))) {
        const tt_select_options as_compiled = { .seed = seed };
        status = tt_select_enrolled(s, &as_compiled, from);
        if (status != TT_OK) {
            s->classes = before;
        }
    }
    return status;
}

/* What a training has come to. */
typedef struct run {
    const tt_train_options *options;
    tt_source from;
    tt_rate rate;
    tt_progress at;
    float start_rate;
    uint32_t initial; /* mean error of the first epoch, while it runs of its samples so far: steps are in proportion */
    int32_t stop;
} run;

static tt_status train_epoch(tt_session *s, run *r, tt_progress_fn *progress, void *user)
{
    const uint32_t count = r->from.samples->count, epoch = r->at.epoch, seed = r->options->seed;
    const float decayed = r->start_rate * (float)(r->at.epochs - epoch) / (float)r->at.epochs;
    const order o = visiting_order(count, epoch, seed);
    uint64_t total = 0;
    for (r->at.sample = 0; r->at.sample < count && !r->stop; r->at.sample++) {
        const uint32_t index = (uint32_t)((o.start + (uint64_t)r->at.sample * o.stride) % count);
        int32_t error = 0;
        r->rate.rate = decayed * ((float)r->initial / 32768.0f);
        r->rate.random = tt_random_state(seed * 0x9E3779B1u + epoch * 0x85EBCA6Bu + index * 0xC2B2AE35u);
        const tt_status status = tt_step_on(s, &r->from, index, (int32_t)epoch, &r->rate, &error);
        if (status != TT_OK) {
            TT_LOG("tinytrain: epoch %u, sample %u: %s\n", (unsigned)epoch, (unsigned)index, tt_status_text(status));
            return status;
        }
        total += (uint32_t)error;
        r->at.saturated = r->rate.saturated;
        r->at.error = (uint32_t)(total / (r->at.sample + 1));
        r->initial = epoch == 0 ? r->at.error : r->initial;
        r->stop = progress != NULL && progress(user, &r->at) != 0;
    }
    TT_LOG("tinytrain: epoch %u: error %u / 32768\n", (unsigned)epoch, (unsigned)r->at.error);
    return TT_OK;
}

tt_status tt_train(tt_session *s, const tt_train_options *options, const tt_samples *samples,
                   tt_progress_fn *progress, void *user)
{
    tt_status status = check(s, options, samples);
    if (status != TT_OK) {
        return status;
    }
    const tt_learning *const l = s->model->learning;
    run r = {
        .options = options,
        .from = { samples, options->cache, 0, 0 },
        .rate = { 0.0f, (int32_t)samples->count, 0, 1 },
        .at = { .epochs = options->epochs, .samples = samples->count },
        .start_rate = options->rate > 0.0f ? options->rate : l->rate,
    };
    status = begin(s, &r.from, options->seed);
    if (status != TT_OK) {
        return status;
    }
    for (; status == TT_OK && r.at.epoch < options->epochs && !r.stop; r.at.epoch++) {
        if (r.at.epoch > 0 && l->selection != NULL) {
            tt_redraw(l->selection, state_of(s), options->seed, r.at.epoch);
        }
        if (r.at.epoch > 0 && l->head->recomputes) {
            status = tt_enroll_all(s, &r.from);
        }
        if (status == TT_OK) {
            status = train_epoch(s, &r, progress, user);
        }
    }
    if (l->head->recomputes) { /* layers have moved: prototypes follow, also after a stop and, if they can, an error */
        const tt_status last = tt_enroll_all(s, &r.from);
        status = status != TT_OK ? status : last;
    }
    return status != TT_OK ? status : r.stop ? TT_ERR_CANCELLED : TT_OK;
}
