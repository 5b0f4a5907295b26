/* Two slots in flash, written in turn: whenever power fails, one is whole. docs/reference/storage-format.md. */
#include "tinytrain_storage.h"

#include <string.h>

#include "tt_port.h"
#include "tt_stored.h"

#define MAGIC 0x54535454u /* "TTST" */
#define SLOTS 2u
#define SEGMENTS 3u
#define WORDS (TT_STORAGE_BLOCK / sizeof(uint32_t))

/* Magic, version and the commit mark behind the header stay where they are in every format version. */
typedef struct header {
    uint32_t magic, version;
    uint32_t digest[2]; /* tt_model.digest */
    uint32_t classes;   /* of the session: may differ where the model is the same */
    uint32_t bytes;     /* of the payload */
    uint32_t sequence;  /* one more with each save */
    uint32_t crc;       /* of the words above, then the payload */
} header;

_Static_assert(sizeof(header) == TT_STORAGE_BLOCK, "the header fills its block");

/* What one call works on. */
typedef struct access {
    const tt_storage *storage;
    const tt_model *model;
    uint32_t classes;
    tt_region segments[SEGMENTS]; /* the session's state; the payload is these, one after the other */
    uint32_t least, most;         /* bytes of a payload: without the training state, and of all segments */
} access;

/* --- CRC-32 of IEEE 802.3 -------------------------------------------------------------------- */

/* Half a byte a step: 64 bytes of table, a quarter of the steps that single bits take. Inverting is the caller's. */
static uint32_t crc32(uint32_t crc, const void *data, size_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15u];
        crc = crc >> 4 ^ table[crc & 15u];
    }
    return crc;
}

static uint32_t header_crc(const header *h)
{
    return crc32(0xFFFFFFFFu, h, offsetof(header, crc));
}

/* --- What is stored, and where --------------------------------------------------------------- */

/*
 * The one place that says what a state consists of. Changing it changes TT_STATE_VERSION. The first segment is stored
 * without the zeros at its end: a selection rarely fills the pool, and a session that only enrolled has learnt
 * nothing.
 */
static void list_segments(const tt_session *s, tt_region segments[SEGMENTS])
{
    const tt_model *m = s->model;
    segments[0] = (tt_region) { s->regions[m->state_region] + m->state_offset, m->state_bytes };
    segments[1] = (tt_region) { s->classes.sums, sizeof(int16_t) * s->classes.count * m->features };
    segments[2] = (tt_region) { s->classes.shots, sizeof(uint16_t) * s->classes.count };
}

static tt_status begin(access *a, const tt_session *s, const tt_storage *storage)
{
    if (s == NULL || s->model == NULL || storage == NULL || storage->erase == NULL || storage->program == NULL ||
        storage->read == NULL || storage->erase_bytes == 0 || storage->erase_bytes % TT_STORAGE_BLOCK != 0 ||
        storage->slot_bytes > UINT32_MAX / SLOTS || storage->slot_bytes % storage->erase_bytes != 0 ||
        storage->program_bytes == 0 ||
        TT_STORAGE_BLOCK % storage->program_bytes != 0) {
        return TT_ERR_ARGUMENT;
    }
    a->storage = storage;
    a->model = s->model;
    a->classes = s->classes.count;
    list_segments(s, a->segments);
    a->least = 0;
    for (uint32_t i = 1; i < SEGMENTS; i++) {
        a->least += (uint32_t)a->segments[i].bytes;
    }
    a->most = a->least + (uint32_t)a->segments[0].bytes;
    return storage->slot_bytes < TT_STATE_BYTES(a->most) ? TT_ERR_MEMORY : TT_OK;
}

static uint32_t zeros_at_end(const tt_region *r)
{
    const uint8_t *const bytes = r->data;
    uint32_t zeros = 0;
    while (zeros < r->bytes && bytes[r->bytes - 1 - zeros] == 0) {
        zeros++;
    }
    return zeros;
}

static tt_status read_bytes(const access *a, uint32_t slot, uint32_t at, void *data, size_t bytes)
{
    const tt_storage *storage = a->storage;
    const uint32_t offset = slot * storage->slot_bytes + at;
    return storage->read(storage->user, offset, data, (uint32_t)bytes) == 0 ? TT_OK : TT_ERR_STORAGE;
}

/* --- Reading --------------------------------------------------------------------------------- */

tt_status tt_stored_read(const tt_stored *stored, uint32_t at, void *data, uint32_t bytes)
{
    const uint32_t there = at >= stored->bytes ? 0 : stored->bytes - at < bytes ? stored->bytes - at : bytes;
    memset((uint8_t *)data + there, 0, bytes - there);
    const tt_storage *const storage = stored->storage;
    return there == 0 || storage->read(storage->user, stored->offset + at, data, there) == 0 ? TT_OK : TT_ERR_STORAGE;
}

/* Whether no class has more examples than sums have room for. at: of the shots, in the slot. */
static tt_status check_shots(const access *a, uint32_t slot, uint32_t at)
{
    uint16_t shots[TT_STORAGE_BLOCK];
    for (uint32_t done = 0; done < a->classes; done += TT_STORAGE_BLOCK) {
        const uint32_t left = a->classes - done, count = left < TT_STORAGE_BLOCK ? left : TT_STORAGE_BLOCK;
        const tt_status status = read_bytes(a, slot, at + done * (uint32_t)sizeof *shots, shots, count * sizeof *shots);
        for (uint32_t i = 0; status == TT_OK && i < count; i++) {
            if (shots[i] > TT_MAX_SHOTS) {
                return TT_ERR_CORRUPT;
            }
        }
        if (status != TT_OK) {
            return status;
        }
    }
    return TT_OK;
}

/* Whether a payload of `bytes` whose CRC is right holds only what this runtime writes: a CRC can be forged. */
static tt_status check_payload(const access *a, uint32_t slot, uint32_t bytes)
{
    const uint32_t begin_at = 2 * TT_STORAGE_BLOCK;
    const tt_stored state = { a->storage, slot * a->storage->slot_bytes + begin_at, bytes - a->least };
    const tt_status status = a->model->check == NULL ? TT_OK : a->model->check(a->model, &state);
    return status != TT_OK ? status : check_shots(a, slot, begin_at + bytes - (uint32_t)a->segments[2].bytes);
}

/* TT_OK: the slot holds a whole state of this model, h is its header. Otherwise why it does not; h is undefined. */
static tt_status examine(const access *a, uint32_t slot, header *h)
{
    uint32_t words[2 * WORDS]; /* header and commit mark, then the payload piece by piece */
    tt_status status = read_bytes(a, slot, 0, words, sizeof words);
    if (status != TT_OK) {
        return status;
    }
    uint32_t different = 0;
    uint32_t mark = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < WORDS; i++) {
        different |= words[i] ^ ~words[WORDS + i];
        mark &= words[WORDS + i];
    }
    if (different != 0) {
        return mark == 0xFFFFFFFFu ? TT_ERR_EMPTY : TT_ERR_CORRUPT;
    }
    memcpy(h, words, sizeof *h); /* from here on only this copy counts: flash may read differently the next time */
    if (h->magic != MAGIC) {
        return TT_ERR_CORRUPT;
    }
    if (h->version != TT_STATE_VERSION) {
        return TT_ERR_FORMAT;
    }
    if (h->digest[0] != a->model->digest[0] || h->digest[1] != a->model->digest[1] ||
        h->classes != a->classes || h->bytes < a->least || h->bytes > a->most) {
        return TT_ERR_MODEL;
    }
    uint32_t crc = header_crc(h);
    for (uint32_t at = 0; status == TT_OK && at < h->bytes; at += sizeof words) {
        const uint32_t left = h->bytes - at;
        const size_t count = left < sizeof words ? left : sizeof words;
        status = read_bytes(a, slot, sizeof words + at, words, count);
        crc = crc32(crc, words, count);
    }
    if (status != TT_OK) {
        return status;
    }
    return ~crc == h->crc ? check_payload(a, slot, h->bytes) : TT_ERR_CORRUPT;
}

/* The slot with the newest whole state of this model; without one, the most telling error of the slots. */
static tt_status find_newest(const access *a, uint32_t *slot, header *h)
{
    tt_status result = TT_ERR_EMPTY;
    for (uint32_t i = 0; i < SLOTS; i++) {
        header found;
        const tt_status status = examine(a, i, &found);
        if (status == TT_OK) {
            if (result != TT_OK || (int32_t)(found.sequence - h->sequence) > 0) { /* also where the number wraps */
                *slot = i;
                *h = found;
            }
            result = TT_OK;
        } else if (result != TT_OK && status < result) { /* codes get more telling downwards */
            result = status;
        }
    }
    return result;
}

tt_status tt_load(tt_session *s, const tt_storage *storage)
{
    access a;
    header h;
    uint32_t slot = 0;
    tt_status status = begin(&a, s, storage);
    if (status == TT_OK) {
        status = find_newest(&a, &slot, &h);
    }
    if (status != TT_OK) {
        return status;
    }
    const uint32_t zeros = a.most - h.bytes;
    a.segments[0].bytes -= zeros;
    uint32_t crc = header_crc(&h);
    uint32_t at = 2 * TT_STORAGE_BLOCK;
    for (uint32_t i = 0; status == TT_OK && i < SEGMENTS; i++) {
        const tt_region *segment = &a.segments[i];
        if (segment->bytes != 0) {
            status = read_bytes(&a, slot, at, segment->data, segment->bytes);
            crc = crc32(crc, segment->data, segment->bytes);
            at += (uint32_t)segment->bytes;
        }
    }
    if (status != TT_OK || ~crc != h.crc) {
        TT_LOG("tinytrain: flash reads differently a second time\n");
        (void)tt_unlearn(s); /* no mixture of two states */
        return TT_ERR_STORAGE;
    }
    if (zeros != 0) {
        memset((uint8_t *)a.segments[0].data + a.segments[0].bytes, 0, zeros);
    }
    return TT_OK;
}

/* --- Writing --------------------------------------------------------------------------------- */

/* As far as a payload of `bytes` reaches. */
static tt_status erase_slot(const access *a, uint32_t slot, uint32_t bytes)
{
    const tt_storage *storage = a->storage;
    for (uint32_t at = 0; at < TT_STATE_BYTES(bytes); at += storage->erase_bytes) {
        if (storage->erase(storage->user, slot * storage->slot_bytes + at) != 0) {
            return TT_ERR_STORAGE;
        }
    }
    return TT_OK;
}

static tt_status program_block(const access *a, uint32_t slot, uint32_t at, const uint32_t block[WORDS])
{
    const tt_storage *storage = a->storage;
    const uint32_t offset = slot * storage->slot_bytes + at;
    return storage->program(storage->user, offset, block, TT_STORAGE_BLOCK) == 0 ? TT_OK : TT_ERR_STORAGE;
}

/* One block of the payload, from the segments it overlaps; behind their end it stays erased. */
static void gather(const access *a, size_t at, uint32_t block[WORDS])
{
    uint8_t *next = (uint8_t *)block;
    size_t room = TT_STORAGE_BLOCK;
    memset(block, 0xFF, room);
    for (uint32_t i = 0; i < SEGMENTS && room != 0; i++) {
        const tt_region *segment = &a->segments[i];
        if (at >= segment->bytes) {
            at -= segment->bytes;
            continue;
        }
        const size_t left = segment->bytes - at;
        const size_t count = left < room ? left : room;
        memcpy(next, (const uint8_t *)segment->data + at, count);
        next += count;
        room -= count;
        at = 0;
    }
}

/* Header, payload, and only then the mark that makes them count: the header's complement. */
static tt_status write_slot(const access *a, uint32_t slot, const header *h)
{
    uint32_t block[WORDS];
    tt_status status = erase_slot(a, slot, h->bytes);
    memcpy(block, h, sizeof block);
    if (status == TT_OK) {
        status = program_block(a, slot, 0, block);
    }
    for (uint32_t at = 0; status == TT_OK && at < h->bytes; at += TT_STORAGE_BLOCK) {
        gather(a, at, block);
        status = program_block(a, slot, 2 * TT_STORAGE_BLOCK + at, block);
    }
    if (status != TT_OK) {
        return status;
    }
    memcpy(block, h, sizeof block);
    for (uint32_t i = 0; i < WORDS; i++) {
        block[i] = ~block[i];
    }
    return program_block(a, slot, TT_STORAGE_BLOCK, block);
}

tt_status tt_save(const tt_session *s, const tt_storage *storage)
{
    access a;
    header h;
    uint32_t newest = 1;
    const tt_status status = begin(&a, s, storage);
    if (status != TT_OK) {
        return status;
    }
    const uint32_t sequence = find_newest(&a, &newest, &h) == TT_OK ? h.sequence + 1 : 0;
    const uint32_t zeros = zeros_at_end(&a.segments[0]);
    a.segments[0].bytes -= zeros;
    h = (header) { MAGIC, TT_STATE_VERSION, { a.model->digest[0], a.model->digest[1] }, a.classes,
                   a.most - zeros, sequence, 0 };
    h.crc = header_crc(&h);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        h.crc = crc32(h.crc, a.segments[i].data, a.segments[i].bytes);
    }
    h.crc = ~h.crc;
    const uint32_t slot = SLOTS - 1 - newest;
    if (write_slot(&a, slot, &h) != TT_OK) {
        return TT_ERR_STORAGE;
    }
    return examine(&a, slot, &h) == TT_OK ? TT_OK : TT_ERR_STORAGE; /* worn-out flash is noticed now, not at start-up */
}
