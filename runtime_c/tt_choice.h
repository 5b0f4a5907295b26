/*
 * Which input channels of the candidate layers learn: scores, the choice within a budget, and drawing channels anew
 * (docs/reference/numerics.md, "Selection"). Of a whole model; where samples come from is not known here.
 *
 * TinyTrain (Kwon et al., ICML 2024): Fisher information of a few samples ranks channels; a bump allocator hands the
 * training pool out to the best of them, once per task.
 */
#ifndef TT_CHOICE_H
#define TT_CHOICE_H

#include "tt_learning.h"

/* --- Scores ----------------------------------------------------------------------------------- */

/* Add (sum over pixels of a g)^2 of one sample to the scores of a layer's input channels.
 * x, dx: pixels x channels; dx the mantissas of what this layer passes to its input. */
void tt_fisher_add(float *scores, const int8_t *x, const int16_t *dx, int32_t pixels, int32_t channels, int32_t zero,
                   int32_t exponent);

/* One score per candidate channel: the squared norm of its pretrained weights, or a random number. */
void tt_score_by_norm(const tt_selection *selection, float *scores);
void tt_score_at_random(const tt_selection *selection, float *scores, uint32_t seed);

/* Bounds within which sums of scores neither overflow nor vanish: whatever was measured, every channel can be drawn. */
void tt_clamp_scores(float *scores, uint32_t count);

/* --- Choice ----------------------------------------------------------------------------------- */

/* What may still be used: bytes of lists and deltas, bytes of saved inputs, MACs of weight gradients in one step. */
typedef struct tt_budget {
    uint32_t pool, saved, macs;
} tt_budget;

/* Choose channels by the table of scores, and lay out their lists and deltas. state: the training state. */
void tt_choose(const tt_selection *selection, uint8_t *state, tt_budget left, tt_selector selector);

/* Whether a choice was made since the state was cleared; a small budget may have left it empty. */
int32_t tt_is_chosen(const tt_selection *selection, const uint8_t *state);

/* Draw the chosen channels anew, where they were selected so. For the beginning of each epoch but the first. */
void tt_redraw(const tt_selection *selection, uint8_t *state, uint32_t seed, uint32_t epoch);

#endif
