/*
 * Augmented images for training: a random shift with reflection, contrast and brightness, in place and in integers.
 * compiler/tinytrain_compiler/evaluate/augment.py specifies the draws; the same seed gives the same bytes.
 */
#ifndef TT_AUGMENT_H
#define TT_AUGMENT_H

#include <stdint.h>

/* x: height x width x channels input bytes, zero their zero point. seed: tt_augment_seed()'s. */
void tt_augment(int8_t *x, int32_t height, int32_t width, int32_t channels, int32_t zero, uint32_t seed);

/* A seed for one image of one epoch; seed: of the training. */
uint32_t tt_augment_seed(uint32_t seed, int32_t epoch, uint32_t index);

#endif
