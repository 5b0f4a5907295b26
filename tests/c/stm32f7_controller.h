/* The flash controller of STM32F74x after its reference manual, strict: what the manual forbids fails the test. */
#ifndef TT_TEST_STM32F7_CONTROLLER_H
#define TT_TEST_STM32F7_CONTROLLER_H

#include <string.h>

#include "check.h"

enum { ORIGIN = 0x08000000, SIZE = 0x100000, BUSY_READS = 3 };

static struct {
    uint8_t bytes[SIZE];
    uint32_t sr, cr;
    int key, busy;                /* keys written in order; status reads until the operation ends */
    int refuse;                   /* the next operation finds its sector write-protected */
    uint32_t erased_sectors;      /* a bit each */
    uint32_t stale_from, stale_to; /* a cache would still hold this */
} controller;

static void controller_reset(void)
{
    memset(&controller, 0, sizeof controller);
    memset(controller.bytes, 0x5A, SIZE);
    controller.cr = 0x80000000u;
}

static uint32_t sector_begin(uint32_t n)
{
    return n < 4u ? n * 0x8000u : n == 4u ? 0x20000u : (n - 4u) * 0x40000u;
}

static uint32_t flash_register(uint32_t offset)
{
    if (offset == 0x0Cu) {
        const int busy = controller.busy > 0;
        controller.busy -= busy;
        return controller.sr | (busy ? 0x10000u : 0u);
    }
    CHECK(offset == 0x10u);
    return controller.cr;
}

static void start_erase(void)
{
    const uint32_t n = controller.cr >> 3 & 15u;
    CHECK(n < 8u && (controller.cr & 0x300u) == 0x200u && (controller.sr & 0xF2u) == 0u);
    controller.busy = BUSY_READS;
    controller.cr &= ~0x10000u;
    if (controller.refuse) {
        controller.refuse = 0;
        controller.sr |= 0x10u; /* WRPERR */
        return;
    }
    memset(controller.bytes + sector_begin(n), 0xFF, sector_begin(n + 1u) - sector_begin(n));
    controller.erased_sectors |= 1u << n;
    controller.stale_from = ORIGIN + sector_begin(n);
    controller.stale_to = ORIGIN + sector_begin(n + 1u);
}

static void set_flash_register(uint32_t offset, uint32_t value)
{
    CHECK(controller.busy == 0);
    if (offset == 0x04u) { /* KEYR */
        CHECK((controller.cr & 0x80000000u) != 0u);
        CHECK(value == (controller.key == 0 ? 0x45670123u : 0xCDEF89ABu));
        controller.key++;
        if (controller.key == 2) {
            controller.key = 0;
            controller.cr &= ~0x80000000u;
        }
    } else if (offset == 0x0Cu) { /* SR */
        controller.sr &= ~value;
    } else {
        CHECK(offset == 0x10u && (controller.cr & 0x80000000u) == 0u);
        controller.cr = value;
        if ((value & 0x10000u) != 0u) {
            CHECK((value & 0x7u) == 0x2u);
            start_erase();
        }
    }
}

static void write_flash(uint32_t address, uint32_t word)
{
    uint32_t before;
    CHECK(controller.busy == 0 && (controller.cr & 0x80000307u) == 0x201u && (controller.sr & 0xF2u) == 0u);
    CHECK(address % 4u == 0u && address >= ORIGIN && address < (uint32_t)ORIGIN + SIZE);
    memcpy(&before, controller.bytes + (address - ORIGIN), sizeof before);
    CHECK(before == 0xFFFFFFFFu);
    memcpy(controller.bytes + (address - ORIGIN), &word, sizeof word);
    controller.busy = BUSY_READS;
    if (address < controller.stale_from || controller.stale_from == 0u) {
        controller.stale_from = address;
    }
    controller.stale_to = address + 4u > controller.stale_to ? address + 4u : controller.stale_to;
}

static void forget_cached(uint32_t address, uint32_t bytes)
{
    if (address <= controller.stale_from && controller.stale_to <= address + bytes) {
        controller.stale_from = controller.stale_to = 0u;
    }
}

static void read_flash(uint32_t address, void *data, uint32_t bytes)
{
    CHECK(controller.busy == 0 && controller.stale_to == 0u);
    CHECK(address >= ORIGIN && address + bytes <= (uint32_t)ORIGIN + SIZE);
    memcpy(data, controller.bytes + (address - ORIGIN), bytes);
}

#endif
