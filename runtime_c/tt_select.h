/*
 * Selection: which input channels of the candidate layers learn a task (docs/numerics.md, "Selection").
 *
 * TinyTrain (Kwon et al., ICML 2024): Fisher information of a few samples ranks channels; a bump allocator hands the
 * training pool out to the best of them, once per task.
 */
#ifndef TT_SELECT_H
#define TT_SELECT_H

#include "tt_learn.h"

/* One layer whose channels are chosen on the device, const, in flash. */
typedef struct tt_candidate {
    const tt_learn_params *layer;
    uint32_t selected;    /* offset of its tt_selected inside `learnt` */
    uint32_t first;       /* its first entry in the table of scores */
    uint16_t channels;    /* input channels */
    uint16_t limit;       /* how many of them may learn */
    uint32_t delta_bytes; /* of one channel */
    uint32_t saved_bytes;
    uint32_t macs;        /* of one channel's weight gradient */
    float cost;           /* P_i times this is the layer's score */
} tt_candidate;

/* What was chosen for a candidate: in RAM, zero before any selection. Offsets are inside `learnt`, but for `saved`. */
typedef struct tt_selected {
    uint32_t channels; /* uint16_t[chosen]; ascending, until they are drawn anew */
    uint32_t deltas;   /* int16_t[outputs * taps * chosen] */
    uint32_t saved;    /* inside the saved inputs of all candidates */
    int32_t chosen;
    float weight_norm;
    uint32_t scores; /* float[channels of the layer] that channels are drawn anew by; 0: they stay */
} tt_selected;

/* The training pool of one model, const. Offsets are inside `learnt`. */
typedef struct tt_selection {
    const tt_candidate *candidates;
    uint32_t count;
    uint32_t groups;         /* passes that measuring Fisher information takes */
    uint32_t pool, pool_end; /* lists and deltas */
    uint32_t table;          /* float scores up to the pool's end, while channels are chosen or drawn anew */
    uint32_t scores;         /* how many */
    uint32_t saved_bytes;
    tt_selector selector; /* where the caller leaves it open */
    uint32_t macs;        /* likewise; UINT32_MAX: no limit */
} tt_selection;

/* What a Fisher pass adds to. */
typedef struct tt_fisher {
    float *scores;
    int32_t group; /* of candidates whose inputs the forward pass kept */
} tt_fisher;

/* Whether a selector looks at the samples: it measures Fisher information, by their prototypes. */
TT_INLINE int32_t tt_selector_measures(tt_selector selector)
{
    return selector != TT_SELECT_RANDOM && selector != TT_SELECT_L2;
}

/* Add (sum over pixels of a g)^2 of one sample to the scores of a layer's input channels.
 * x, dx: pixels x channels; dx the mantissas of what this layer passes to its input. */
void tt_fisher_add(float *scores, const int8_t *x, const int16_t *dx, int32_t pixels, int32_t channels, int32_t zero,
                   int32_t exponent);

/* Draw the channels that learn anew, where they were selected so. For the beginning of each epoch but the first. */
void tt_redraw(const tt_selection *selection, uint8_t *learnt, uint32_t seed, uint32_t epoch);

#endif
