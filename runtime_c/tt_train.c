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

/* Ask the caller for a sample, straight into the arena. */
static tt_status fetch(const tt_session *s, const tt_samples *samples, uint32_t index, int32_t epoch, int32_t *label)
{
    *label = -1;
    const tt_status status = samples->get(samples->user, index, epoch, tt_input(s), label);
    if (status != TT_OK) {
        return status;
    }
    return *label < 0 || (uint32_t)*label >= s->model->classes ? TT_ERR_LABEL : TT_OK;
}

static tt_status recompute_prototypes(tt_session *s, const tt_samples *samples)
{
    tt_status status = tt_forget(s);
    for (uint32_t i = 0; status == TT_OK && i < samples->count; i++) {
        int32_t label;
        status = fetch(s, samples, i, TT_CLEAN, &label);
        if (status == TT_OK) {
            status = tt_enroll(s, tt_input(s), label);
        }
    }
    return status;
}

/* One sample: forward, loss, backward, update. error: 1 - p[label] with 15 fraction bits. */
static void step(tt_session *s, tt_rate *rate, int32_t label, int32_t *error)
{
    const tt_model *m = s->model;
    const tt_learning *l = m->learning;
    m->run(s->regions, 1);
    int32_t exponent;
    *error = tt_loss(m, s->sums, s->shots, (const int8_t *)(s->regions[m->features_region] + m->features_offset), label,
                     (int16_t *)(void *)(s->regions[l->gradient_region] + l->gradient_offset), &exponent,
                     (int64_t *)(void *)(s->regions[l->loss_region] + l->loss_offset));
    l->backward(s->regions, rate, exponent);
}

tt_status tt_train(tt_session *s, const tt_train_options *options, const tt_samples *samples,
                   tt_progress_fn *progress, void *user)
{
    if (s == NULL || s->model == NULL || options == NULL || samples == NULL || samples->get == NULL ||
        samples->count == 0 || !(options->rate > 0.0f)) {
        return TT_ERR_ARGUMENT;
    }
    if (s->model->learning == NULL) {
        return TT_ERR_POLICY;
    }
    tt_rate rate = { options->rate, (int32_t)samples->count, 0, 1 };
    tt_progress at = { 0, options->epochs, 0, samples->count, 0, 0 };
    tt_status status = TT_OK;
    int32_t stop = 0;
    for (; status == TT_OK && at.epoch < options->epochs && !stop; at.epoch++) {
        status = recompute_prototypes(s, samples);
        rate.rate = options->rate * (float)(options->epochs - at.epoch) / (float)options->epochs; /* linear decay */
        const order o = visiting_order(samples->count, at.epoch, options->seed);
        uint64_t total = 0;
        for (at.sample = 0; status == TT_OK && at.sample < samples->count && !stop; at.sample++) {
            const uint32_t index = (uint32_t)((o.start + (uint64_t)at.sample * o.stride) % samples->count);
            int32_t label;
            status = fetch(s, samples, index, (int32_t)at.epoch, &label);
            if (status != TT_OK) {
                break;
            }
            rate.random = tt_random_state(options->seed * 0x9E3779B1u + at.epoch * 0x85EBCA6Bu + index * 0xC2B2AE35u);
            int32_t error;
            step(s, &rate, label, &error);
            total += (uint32_t)error;
            at.saturated = rate.saturated;
            at.error = (uint32_t)(total / (at.sample + 1));
            stop = progress != NULL && progress(user, &at) != 0;
        }
    }
    if (status == TT_OK) { /* features have moved: prototypes follow, also after a stop */
        status = recompute_prototypes(s, samples);
    }
    return status != TT_OK ? status : stop ? TT_ERR_CANCELLED : TT_OK;
}
