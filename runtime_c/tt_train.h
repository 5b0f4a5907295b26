/* Training: what a model that learns brings along, and the loop over the support set. */
#ifndef TT_TRAIN_H
#define TT_TRAIN_H

#include "tt_select.h"

/* How a head learns. */
typedef struct tt_head_learning {
    /* Loss of one sample and a step of the head's own weights. gradient: of the loss with respect to the embedding,
     * mantissas; its exponent is returned through the pointer. scratch: 2 * classes.
     * rate: NULL for the loss alone. Returns 1 - p[label] with 15 fraction bits. */
    int32_t (*learn)(const tt_session *s, tt_rate *rate, const int8_t *features, int32_t label, int16_t *gradient,
                     int32_t *exponent, int64_t *scratch);
    /* Class means follow the layers: computed again in front of each epoch and after the last, not of the first alone. */
    int32_t recomputes;
} tt_head_learning;

/* A compiled backward pass. Offsets are into the session's regions. */
struct tt_learning {
    void (*prefix)(uint8_t *const regions[]);               /* input to features: layers that never change */
    void (*suffix)(uint8_t *const regions[], int32_t keep); /* features to embedding, or to the output: TT_KEEP_... */
    uint32_t cut_region, cut_offset, cut_bytes;             /* where the features of layers that never change lie */
    /* After suffix(regions, TT_KEEP) and the loss: backward and update for one sample; or, where fisher is not NULL
     * and after TT_KEEP_FISHER + group, backward alone, adding to its scores. */
    void (*backward)(uint8_t *const regions[], tt_rate *rate, const tt_fisher *fisher, int32_t exponent);
    uint32_t learnt_region, learnt_offset, learnt_bytes;       /* what layers, then the head, then selected channels learn */
    uint32_t gradient_region, gradient_offset;                 /* the embedding's gradient: int16 */
    uint32_t loss_region, loss_offset;                         /* 2 * classes int64, while the loss is computed */
    const tt_head_learning *head;
    uint32_t head_offset, head_bytes;                          /* the head's part, counted from the region's start */
    float rate;                                                /* where the caller leaves it open */
    const tt_selection *selection;                             /* NULL: what learns is fixed */
};

/* How far suffix() goes, and what it keeps. */
#define TT_KEEP_OUTPUT (-1) /* to the output, nothing */
#define TT_KEEP_NOTHING 0   /* to the embedding, nothing */
#define TT_KEEP 1           /* to the embedding, all that backward() needs */
#define TT_KEEP_FISHER 2    /* likewise, but the candidates' whole inputs; + group */

/* Where samples come from, in one training or one selection. */
typedef struct tt_source {
    const tt_samples *samples;
    const tt_cache *cache; /* or NULL */
    int32_t clean_stored;  /* whether the cache holds the clean features */
    uint32_t measured;     /* of how many samples, tt_measured_sample()'s, it holds the first epoch's */
} tt_source;

/* Prototypes of the samples, clean, by the network as it is now. */
tt_status tt_enroll_all(tt_session *s, tt_source *from);

/* Which sample is the i-th of `measured` ones, evenly spaced. */
TT_INLINE uint32_t tt_measured_sample(uint32_t i, uint32_t measured, uint32_t count)
{
    return (uint32_t)((uint64_t)i * count / measured);
}

/* A Fisher pass over one sample, as it looks in the first epoch. */
tt_status tt_measure(tt_session *s, const tt_source *from, uint32_t index, const tt_fisher *fisher);

/* tt_select() from where nothing is learnt and, if its selector looks at samples, they are enrolled. */
tt_status tt_select_enrolled(tt_session *s, const tt_select_options *options, tt_source *from);

/* What a head has learnt: head_bytes, all zero after tt_forget(). */
TT_INLINE void *tt_head_state(const tt_session *s)
{
    const tt_learning *const l = s->model->learning;
    return s->regions[l->learnt_region] + l->head_offset;
}

#endif
