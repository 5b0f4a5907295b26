#include "tt_choice.h"
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

/* Prototypes; and where nothing is selected yet, channels, by the same prototypes: nothing has moved since. */
static tt_status begin(tt_session *s, tt_source *from, uint32_t seed)
{
    const tt_selection *const selection = s->model->learning->selection;
    const int32_t selects = selection != NULL && !tt_is_chosen(selection, state_of(s));
    if (selects) {
        (void)tt_unlearn(s);
    }
    const tt_status status = tt_enroll_all(s, from);
    if (status != TT_OK || !selects) {
        return status;
    }
    const tt_select_options as_compiled = { .seed = seed };
    return tt_select_enrolled(s, &as_compiled, from);
}

tt_status tt_train(tt_session *s, const tt_train_options *options, const tt_samples *samples,
                   tt_progress_fn *progress, void *user)
{
    if (s == NULL || s->model == NULL || options == NULL || samples == NULL || samples->get == NULL ||
        samples->count == 0 || !(options->rate >= 0.0f) || (options->cache != NULL && options->cache->copies == 0)) {
        return TT_ERR_ARGUMENT;
    }
    if (s->model->learning == NULL) {
        return TT_ERR_POLICY;
    }
    const tt_learning *const l = s->model->learning;
    const float start_rate = options->rate > 0.0f ? options->rate : l->rate;
    tt_source from = { samples, options->cache, 0, 0 };
    tt_rate rate = { start_rate, (int32_t)samples->count, 0, 1 };
    tt_progress at = { 0, options->epochs, 0, samples->count, 0, 0 };
    uint32_t initial = 0; /* mean error of the first epoch, while it runs of its samples so far: steps are in proportion */
    int32_t stop = 0;
    const int32_t recomputes = l->head->recomputes;
    tt_status status = begin(s, &from, options->seed);
    for (; status == TT_OK && at.epoch < options->epochs && !stop; at.epoch++) {
        if (at.epoch > 0 && l->selection != NULL) {
            tt_redraw(l->selection, state_of(s), options->seed, at.epoch);
        }
        if (at.epoch > 0 && recomputes) {
            status = tt_enroll_all(s, &from);
        }
        const float decayed = start_rate * (float)(options->epochs - at.epoch) / (float)options->epochs;
        const order o = visiting_order(samples->count, at.epoch, options->seed);
        uint64_t total = 0;
        for (at.sample = 0; status == TT_OK && at.sample < samples->count && !stop; at.sample++) {
            const uint32_t index = (uint32_t)((o.start + (uint64_t)at.sample * o.stride) % samples->count);
            int32_t error = 0;
            rate.rate = decayed * ((float)initial / 32768.0f);
            rate.random = tt_random_state(options->seed * 0x9E3779B1u + at.epoch * 0x85EBCA6Bu + index * 0xC2B2AE35u);
            status = tt_step_on(s, &from, index, (int32_t)at.epoch, &rate, &error);
            if (status != TT_OK) {
                break;
            }
            total += (uint32_t)error;
            at.saturated = rate.saturated;
            at.error = (uint32_t)(total / (at.sample + 1));
            initial = at.epoch == 0 ? at.error : initial;
            stop = progress != NULL && progress(user, &at) != 0;
        }
    }
    if (status == TT_OK && recomputes) { /* features have moved: prototypes follow, also after a stop */
        status = tt_enroll_all(s, &from);
    }
    return status != TT_OK ? status : stop ? TT_ERR_CANCELLED : TT_OK;
}
