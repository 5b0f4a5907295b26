#include "tt_train.h"

#include "tt_head.h"

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

/* --- Samples --------------------------------------------------------------------------------- */

/* Ask the caller for a sample, straight into the arena; without an input for its label alone. */
static tt_status fetch(const tt_session *s, const tt_samples *samples, uint32_t index, int32_t epoch, int8_t *input,
                       int32_t *label)
{
    *label = -1;
    const tt_status status = samples->get(samples->user, index, epoch, input, label);
    if (status != TT_OK) {
        return status;
    }
    return *label < 0 || (uint32_t)*label >= s->model->classes ? TT_ERR_LABEL : TT_OK;
}

/* Whether tt_select_enrolled() stored the sample's features: those of tt_measured_sample(). */
static int32_t was_measured(const tt_source *from, uint32_t index)
{
    const uint32_t count = from->samples->count, measured = from->measured;
    if (measured == 0) {
        return 0;
    }
    const uint32_t i = (uint32_t)(((uint64_t)index * measured + count - 1) / count); /* the first one not in front */
    return tt_measured_sample(i, measured, count) == index;
}

/* Whether the cache holds the sample's features as they are in this epoch. */
static int32_t is_stored(const tt_source *from, uint32_t index, int32_t epoch)
{
    if (from->cache == NULL) {
        return 0;
    }
    if (epoch == TT_CLEAN) {
        return from->clean_stored;
    }
    return (uint32_t)epoch >= from->cache->copies || (epoch == 0 && was_measured(from, index));
}

/* The sample's features at the cut, computed or out of the cache, and its label. */
static tt_status features_of(tt_session *s, const tt_source *from, uint32_t index, int32_t epoch, int32_t *label)
{
    const tt_learning *const l = s->model->learning;
    const tt_cache *const cache = from->cache;
    int8_t *const features = (int8_t *)(s->regions[l->cut_region] + l->cut_offset);
    const uint32_t copy = cache == NULL || epoch == TT_CLEAN ? 0 : 1 + (uint32_t)epoch % cache->copies;
    const uint32_t slot = cache == NULL ? 0 : index * (cache->copies + 1) + copy;
    const int32_t stored = is_stored(from, index, epoch);
    const tt_status status = fetch(s, from->samples, index, epoch, stored ? NULL : tt_input(s), label);
    if (status != TT_OK) {
        return status;
    }
    if (stored) {
        return cache->load(cache->user, slot, features, l->cut_bytes);
    }
    l->prefix(s->regions);
    return cache == NULL ? TT_OK : cache->store(cache->user, slot, features, l->cut_bytes);
}

static int8_t *embedding(const tt_session *s)
{
    return (int8_t *)(s->regions[s->model->features_region] + s->model->features_offset);
}

tt_status tt_enroll_all(tt_session *s, tt_source *from)
{
    tt_status status = tt_forget(s);
    for (uint32_t i = 0; status == TT_OK && i < from->samples->count; i++) {
        int32_t label;
        status = features_of(s, from, i, TT_CLEAN, &label);
        if (status == TT_OK) {
            s->model->learning->suffix(s->regions, TT_KEEP_NOTHING);
            status = tt_head_enroll(s, embedding(s), label);
        }
    }
    from->clean_stored = status == TT_OK;
    return status;
}

/* --- Steps ----------------------------------------------------------------------------------- */

/* Loss of the embedding that suffix() left, and a step of the head unless rate is NULL; its gradient's exponent.
 * error: 1 - p[label] with 15 fraction bits. */
static int32_t loss(const tt_session *s, tt_rate *rate, int32_t label, int32_t *error)
{
    const tt_learning *const l = s->model->learning;
    int32_t exponent;
    *error = l->head->learn(s, rate, embedding(s), label,
                            (int16_t *)(void *)(s->regions[l->gradient_region] + l->gradient_offset), &exponent,
                            (int64_t *)(void *)(s->regions[l->loss_region] + l->loss_offset));
    return exponent;
}

/* One sample: forward, loss, backward, update. */
static tt_status step(tt_session *s, const tt_source *from, uint32_t index, int32_t epoch, tt_rate *rate, int32_t *error)
{
    const tt_learning *const l = s->model->learning;
    int32_t label;
    const tt_status status = features_of(s, from, index, epoch, &label);
    if (status == TT_OK) {
        l->suffix(s->regions, TT_KEEP);
        l->backward(s->regions, rate, NULL, loss(s, rate, label, error));
    }
    return status;
}

tt_status tt_measure(tt_session *s, const tt_source *from, uint32_t index, const tt_fisher *fisher)
{
    const tt_learning *const l = s->model->learning;
    int32_t label;
    const tt_status status = features_of(s, from, index, 0, &label);
    if (status == TT_OK) {
        int32_t error;
        l->suffix(s->regions, TT_KEEP_FISHER + fisher->group);
        l->backward(s->regions, NULL, fisher, loss(s, NULL, label, &error));
    }
    return status;
}

/* --- Training -------------------------------------------------------------------------------- */

static int32_t is_selected(const tt_session *s)
{
    const tt_learning *const l = s->model->learning;
    const uint8_t *const learnt = s->regions[l->learnt_region] + l->learnt_offset;
    for (uint32_t i = 0; l->selection != NULL && i < l->selection->count; i++) {
        if (((const tt_selected *)(const void *)(learnt + l->selection->candidates[i].selected))->chosen != 0) {
            return 1;
        }
    }
    return l->selection == NULL;
}

/* Prototypes; and where nothing is selected yet, channels, by the same prototypes: nothing has moved since. */
static tt_status begin(tt_session *s, tt_source *from, uint32_t seed)
{
    const int32_t selects = !is_selected(s);
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
            tt_redraw(l->selection, s->regions[l->learnt_region] + l->learnt_offset, options->seed, at.epoch);
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
            status = step(s, &from, index, (int32_t)at.epoch, &rate, &error);
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
