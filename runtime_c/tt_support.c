#include "tt_support.h"

#include "tt_head.h"
#include "tt_port.h"

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
    return *label < 0 || (uint32_t)*label >= s->classes.count ? TT_ERR_LABEL : TT_OK;
}

tt_status tt_check_samples(const tt_session *s, const tt_samples *samples)
{
    uint16_t *const counts = s->classes.next_shots;
    memset(counts, 0, sizeof(uint16_t) * s->classes.count);
    for (uint32_t i = 0; i < samples->count; i++) {
        int32_t label;
        const tt_status status = fetch(s, samples, i, TT_CLEAN, NULL, &label);
        if (status != TT_OK) {
            return status;
        }
        if (++counts[label] > TT_MAX_SHOTS) {
            return TT_ERR_FULL;
        }
    }
    return TT_OK;
}

int32_t tt_covers_enrolled(const tt_session *s)
{
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0 && s->classes.next_shots[c] == 0) {
            return 0;
        }
    }
    return 1;
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

/* The sample's features at the freeze boundary, computed or out of the cache, and its label. */
static tt_status features_of(tt_session *s, const tt_source *from, uint32_t index, int32_t epoch, int32_t *label)
{
    const tt_learning *const l = s->model->learning;
    const tt_cache *const cache = from->cache;
    int8_t *const features = (int8_t *)(s->regions[l->boundary_region] + l->boundary_offset);
    const uint32_t copy = cache == NULL || epoch == TT_CLEAN ? 0 : 1 + (uint32_t)epoch % cache->copies;
    const uint32_t slot = cache == NULL ? 0 : index * (cache->copies + 1) + copy;
    const int32_t stored = is_stored(from, index, epoch);
    const tt_status status = fetch(s, from->samples, index, epoch, stored ? NULL : tt_input(s), label);
    if (status != TT_OK) {
        return status;
    }
    if (stored) {
        return cache->load(cache->user, slot, features, l->boundary_bytes);
    }
    l->run_frozen(s->regions);
    return cache == NULL ? TT_OK : cache->store(cache->user, slot, features, l->boundary_bytes);
}

static int8_t *embedding(const tt_session *s)
{
    return (int8_t *)(s->regions[s->model->features_region] + s->model->features_offset);
}

/* In the memory of the next prototypes: whatever fails, the present ones stay. */
tt_status tt_enroll_all(tt_session *s, tt_source *from)
{
    const tt_classes now = s->classes;
    tt_session next = *s;
    next.classes = (tt_classes) { now.count, now.next_sums, now.next_shots, now.sums, now.shots };
    memset(next.classes.sums, 0, sizeof(int16_t) * now.count * s->model->features);
    memset(next.classes.shots, 0, sizeof(uint16_t) * now.count);
    for (uint32_t i = 0; i < from->samples->count; i++) {
        int32_t label;
        tt_status status = features_of(s, from, i, TT_CLEAN, &label);
        if (status == TT_OK) {
            s->model->learning->run_trained(s->regions, TT_KEEP_NOTHING);
            status = tt_head_enroll(&next, embedding(s), label);
        }
        if (status != TT_OK) {
            TT_LOG("tinytrain: sample %u: %s\n", (unsigned)i, tt_status_text(status));
            return status;
        }
    }
    from->clean_stored = 1;
    s->classes = next.classes;
    if (s->model->head_bytes != 0) {
        memset(tt_head_state(s), 0, s->model->head_bytes);
    }
    return TT_OK;
}

/* --- Steps ----------------------------------------------------------------------------------- */

/* Loss of the embedding that run_trained() left, and a step of the head unless rate is NULL; its gradient's exponent.
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

tt_status tt_step_on(tt_session *s, const tt_source *from, uint32_t index, int32_t epoch, tt_rate *rate, int32_t *error)
{
    const tt_learning *const l = s->model->learning;
    int32_t label;
    const tt_status status = features_of(s, from, index, epoch, &label);
    if (status == TT_OK) {
        l->run_trained(s->regions, TT_KEEP);
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
        l->run_trained(s->regions, TT_KEEP_FISHER + fisher->group);
        l->backward(s->regions, NULL, fisher, loss(s, NULL, label, &error));
    }
    return status;
}
