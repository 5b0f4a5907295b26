/*
 * Flash that loses power: two slots of memory with the rules of real flash, and a power supply that fails at a chosen
 * step. An erase of a unit has 9 steps (eighths done), a program of n bytes n + 1 (bytes done). FLASH_SLOT and
 * FLASH_ERASE are the including file's.
 */
#ifndef TT_TEST_FLASH_H
#define TT_TEST_FLASH_H

#include <string.h>

#include "check.h"
#include "tinytrain_storage.h"

enum { FLASH_BYTES = 2 * FLASH_SLOT, EIGHTHS = 8 };

/* What the operation under way leaves behind where it was not done. */
typedef enum manner {
    UNTOUCHED,  /* the bytes as they were */
    HALF_DONE,  /* some of the bits; an erase may also leave garbage or zeros */
    FLICKERING, /* bits that read differently each time */
    UNREADABLE, /* half done, and reading it is an error, as with ECC */
    MANNERS
} manner;

typedef struct flash_memory {
    uint8_t bytes[FLASH_BYTES], flickering[FLASH_BYTES], unreadable[FLASH_BYTES];
    uint8_t erased[FLASH_BYTES]; /* may be programmed */
} flash_memory;

static flash_memory flash;

static struct {
    uint64_t now, cut;          /* steps since power came; when it fails */
    uint64_t last_begin;        /* step at which the last program began */
    manner manner;
    int off, torn, inside_erase; /* torn: it failed in the middle of an operation */
    uint32_t seed, program_bytes;
    uint32_t last_offset;       /* of the last program */
} power;

static uint32_t any(void)
{
    power.seed ^= power.seed << 13;
    power.seed ^= power.seed >> 17;
    power.seed ^= power.seed << 5;
    return power.seed;
}

static uint8_t any_byte(void)
{
    return (uint8_t)(any() >> 11);
}

/* How many of the operation's steps are done; fewer than all of them: power failed. */
static uint64_t supply(uint64_t steps)
{
    const uint64_t begin = power.now;
    power.now += steps + 1;
    if (power.cut < begin || power.cut >= power.now) {
        return steps;
    }
    power.off = 1;
    power.torn = power.cut - begin < steps;
    return power.cut - begin;
}

static void tear(uint32_t at, uint8_t before, uint8_t after)
{
    const uint8_t changing = (uint8_t)(before ^ after);
    flash.bytes[at] = before;
    if (power.manner == HALF_DONE || power.manner == UNREADABLE) {
        flash.bytes[at] = (uint8_t)(before ^ (changing & any_byte()));
    }
    flash.flickering[at] = power.manner == FLICKERING ? changing : 0;
    flash.unreadable[at] = power.manner == UNREADABLE;
    flash.erased[at] = 0;
}

static int flash_erase(void *user, uint32_t offset)
{
    (void)user;
    CHECK(offset % FLASH_ERASE == 0 && offset < FLASH_BYTES);
    if (power.off) {
        return -1;
    }
    power.inside_erase = 1;
    const uint32_t done = (uint32_t)supply(EIGHTHS) * (FLASH_ERASE / EIGHTHS);
    const uint32_t leaves = any() % 3;
    for (uint32_t i = 0; i < FLASH_ERASE; i++) {
        const uint32_t at = offset + i;
        if (i >= done) {
            tear(at, flash.bytes[at], 0xFF);
            if (power.manner == HALF_DONE && leaves != 0) {
                flash.bytes[at] = leaves == 1 ? any_byte() : 0;
            }
            continue;
        }
        flash.bytes[at] = 0xFF;
        flash.flickering[at] = flash.unreadable[at] = 0;
        flash.erased[at] = 1;
    }
    return power.off ? -1 : 0;
}

static int flash_program(void *user, uint32_t offset, const void *data, uint32_t bytes)
{
    (void)user;
    CHECK(offset % power.program_bytes == 0 && bytes % power.program_bytes == 0 && offset + bytes <= FLASH_BYTES);
    CHECK(offset / FLASH_SLOT == (offset + bytes - 1) / FLASH_SLOT);
    CHECK((uintptr_t)data % 4 == 0);
    if (power.off) {
        return -1;
    }
    power.inside_erase = 0;
    power.last_begin = power.now;
    power.last_offset = offset;
    const uint32_t done = (uint32_t)supply(bytes);
    const uint32_t unit_end = done / power.program_bytes * power.program_bytes + power.program_bytes;
    const uint32_t reach = any() & 1u ? unit_end : bytes; /* some flash programs a whole buffer at once */
    for (uint32_t i = 0; i < bytes; i++) {
        const uint32_t at = offset + i;
        const uint8_t value = ((const uint8_t *)data)[i];
        CHECK(flash.erased[at] && flash.bytes[at] == 0xFF); /* nothing is programmed twice */
        if (i < done) {
            flash.bytes[at] = value;
            flash.erased[at] = 0;
        } else if (i < reach) {
            tear(at, 0xFF, value);
        }
    }
    return power.off ? -1 : 0;
}

static int flash_read(void *user, uint32_t offset, void *data, uint32_t bytes)
{
    (void)user;
    CHECK(offset + bytes <= FLASH_BYTES);
    int damaged = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        const uint32_t at = offset + i;
        const uint8_t flicker = flash.flickering[at];
        ((uint8_t *)data)[i] = flicker ? (uint8_t)(flash.bytes[at] ^ (flicker & any_byte())) : flash.bytes[at];
        damaged |= flash.unreadable[at];
    }
    return power.off || damaged ? -1 : 0;
}

static tt_storage flash_driver(void)
{
    return (tt_storage) { flash_erase, flash_program, flash_read, NULL, FLASH_SLOT, FLASH_ERASE, power.program_bytes };
}

/* Power comes back, and fails again at step `cut`. */
static void power_on(uint64_t cut, manner how)
{
    power.now = 0;
    power.cut = cut;
    power.manner = how;
    power.off = power.torn = 0;
}

#endif
