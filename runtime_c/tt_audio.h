/*
 * Sound as a network takes it: log-mel or MFCC of 16-bit PCM, frame by frame, in integers that are the same on every
 * core and on the host (docs/reference/numerics.md, "Sound"). A model compiled with --audio brings its constants and
 * functions of its own, <model>_audio.h, which wrap these:
 *
 *     static net_audio audio;
 *     net_audio_init(&audio);
 *     net_audio_push(&audio, pcm, count);              // whenever samples came, any number of them
 *     if (net_audio_input(&audio, net_input(&session)) == TT_OK) {
 *         net_infer(&session, net_input(&session), &result);
 *     }
 */
#ifndef TT_AUDIO_H
#define TT_AUDIO_H

#include "tinytrain.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Constants of a front end: generated, const, in flash. */
typedef struct tt_audio_plan {
    uint16_t window, hop, points, bands; /* samples, samples, of the FFT, of mel */
    uint16_t coefficients;               /* of the DCT; 0: log-mel */
    uint16_t frames;                     /* of an input */
    uint16_t frame_step, value_step;     /* bytes of the input from frame to frame, from value to value */
    uint16_t power;                      /* bands add up power instead of amplitude */
    uint16_t scale_bits;                 /* of a band's sum */
    uint16_t fraction;                   /* bits of a feature */
    uint16_t quietest;                   /* the least peak */
    int32_t log_factor;                  /* of a logarithm to base 2, Q16 */
    int32_t level_factor;                /* of a change of level, Q14; 0: levels stay as they are */
    int64_t floor;                       /* added to each band */
    int32_t multiplier;                  /* input = (feature * multiplier + offset) >> 24 */
    int64_t offset;
    const int32_t *cosines;  /* points / 4 + 1, Q31 */
    const uint16_t *half;    /* window / 2 + 1: the first half of the window, Q15 */
    const uint16_t *starts;  /* bands + 2: the first bin of each interval between two edges */
    const uint16_t *weights; /* of each bin: how far it lies in its interval, Q15 */
    const int16_t *dct;      /* coefficients x bands, Q14 */
} tt_audio_plan;

/* What the last samples were: the caller's memory. */
typedef struct tt_audio {
    int16_t *samples;  /* window */
    int16_t *features; /* frames x values, a ring */
    int16_t *peaks;    /* frames; unused where level_factor is 0 */
    int32_t *work;     /* points, then bands */
    uint32_t held;     /* samples */
    uint32_t next;     /* frame to write */
    uint32_t made;     /* frames since the start, up to plan->frames */
} tt_audio;

/* Forget all samples. */
void tt_audio_reset(tt_audio *audio);

/* Take samples in; the number of frames that they completed. */
uint32_t tt_audio_push(const tt_audio_plan *plan, tt_audio *audio, const int16_t *pcm, uint32_t count);

/* The model's input of the last frames. TT_ERR_EMPTY: there are not enough yet, and input is as it was. */
tt_status tt_audio_input(const tt_audio_plan *plan, const tt_audio *audio, int8_t *input);

#ifdef __cplusplus
}
#endif

#endif
