/* Passes over the support set: prototypes, training steps and Fisher passes of the caller's samples. */
#ifndef TT_SUPPORT_H
#define TT_SUPPORT_H

#include "tt_learning.h"

/* Where samples come from, in one training or one selection. */
typedef struct tt_source {
    const tt_samples *samples;
    const tt_cache *cache; /* or NULL */
    int32_t clean_stored;  /* whether the cache holds the clean features */
    uint32_t measured;     /* of how many samples, tt_measured_sample()'s, it holds the first epoch's */
} tt_source;

/* Whether all labels are classes and none has too many samples; counts them in the memory of the next prototypes. */
tt_status tt_check_samples(const tt_session *s, const tt_samples *samples);

/* After it: whether every enrolled class has a sample. */
int32_t tt_covers_enrolled(const tt_session *s);

/* Prototypes of the samples, clean, by the network as it is now. Present ones stay where a sample cannot be had. */
tt_status tt_enroll_all(tt_session *s, tt_source *from);

/* One training step: forward, loss, backward, update. error: 1 - p[label] with 15 fraction bits. */
tt_status tt_step_on(tt_session *s, const tt_source *from, uint32_t index, int32_t epoch, tt_rate *rate,
                     int32_t *error);

/* Which sample is the i-th of `measured` ones, evenly spaced. */
TT_INLINE uint32_t tt_measured_sample(uint32_t i, uint32_t measured, uint32_t count)
{
    return (uint32_t)((uint64_t)i * count / measured);
}

/* A Fisher pass over one sample, as it looks in the first epoch. */
tt_status tt_measure(tt_session *s, const tt_source *from, uint32_t index, const tt_fisher *fisher);

#endif
