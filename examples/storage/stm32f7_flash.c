#include "stm32f7_flash.h"

#include <string.h>

#ifdef STM32F7_FLASH_ACCESS
#include STM32F7_FLASH_ACCESS /* a simulated controller; it defines the functions of the other branch */
#else

static uint32_t flash_register(uint32_t offset)
{
    return *(volatile uint32_t *)(0x40023C00u + offset);
}

static void set_flash_register(uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(0x40023C00u + offset) = value;
}

static void write_flash(uint32_t address, uint32_t word)
{
    *(volatile uint32_t *)address = word;
    __asm__ volatile("dsb" ::: "memory"); /* programmed before its status is asked for */
}

static void read_flash(uint32_t address, void *data, uint32_t bytes)
{
    memcpy(data, (const void *)address, bytes);
}

/* The data cache may hold what was there before. */
static void forget_cached(uint32_t address, uint32_t bytes)
{
    __asm__ volatile("dsb" ::: "memory");
    for (uint32_t line = address & ~31u; line < address + bytes; line += 32u) {
        *(volatile uint32_t *)0xE000EF5Cu = line; /* DCIMVAC */
    }
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

#endif

/* RM0385, 3.7: offsets and bits of the registers. */
enum { KEYR = 0x04, SR = 0x0C, CR = 0x10 };
#define SR_ERRORS 0x000000F2u /* ERSERR, PGPERR, PGAERR, WRPERR, OPERR; written 1 to clear */
#define SR_EOP 0x00000001u
#define SR_BSY 0x00010000u
#define CR_PG 0x00000001u
#define CR_SER 0x00000002u
#define CR_SECTOR(n) ((n) << 3)
#define CR_PSIZE_32 0x00000200u
#define CR_START 0x00010000u
#define CR_LOCK 0x80000000u

#define FLASH_ORIGIN 0x08000000u

/* Four sectors of 32 KB, one of 128 KB, three of 256 KB: where each begins, and the end. */
static const uint32_t sectors[] = {0x0u,     0x8000u,  0x10000u, 0x18000u, 0x20000u,
                                   0x40000u, 0x80000u, 0xC0000u, 0x100000u};
#define SECTORS (sizeof sectors / sizeof sectors[0] - 1u)

static void wait(void)
{
    while ((flash_register(SR) & SR_BSY) != 0u) {
    }
}

/* Unlocked, idle, and without the errors of whoever was here before, which would keep an operation from starting. */
static void begin(void)
{
    wait();
    if ((flash_register(CR) & CR_LOCK) != 0u) {
        set_flash_register(KEYR, 0x45670123u);
        set_flash_register(KEYR, 0xCDEF89ABu);
    }
    set_flash_register(SR, SR_ERRORS | SR_EOP);
}

static int end(void)
{
    wait();
    const uint32_t errors = flash_register(SR) & SR_ERRORS;
    set_flash_register(SR, errors | SR_EOP);
    set_flash_register(CR, CR_LOCK);
    return errors != 0u ? -1 : 0;
}

static int inside(const stm32f7_flash *slots, uint32_t offset, uint32_t bytes)
{
    return offset <= slots->bytes && bytes <= slots->bytes - offset;
}

static int erase(void *user, uint32_t offset)
{
    const stm32f7_flash *const slots = user;
    const uint32_t address = slots->address + offset;
    for (uint32_t n = 0; n < SECTORS; n++) {
        const uint32_t bytes = sectors[n + 1u] - sectors[n];
        if (address == FLASH_ORIGIN + sectors[n] && inside(slots, offset, bytes)) {
            begin();
            set_flash_register(CR, CR_SER | CR_SECTOR(n) | CR_PSIZE_32);
            set_flash_register(CR, CR_SER | CR_SECTOR(n) | CR_PSIZE_32 | CR_START);
            const int status = end();
            forget_cached(address, bytes);
            return status;
        }
    }
    return -1; /* no sector that lies inside the slots from its first byte to its last */
}

static int program(void *user, uint32_t offset, const void *data, uint32_t bytes)
{
    const stm32f7_flash *const slots = user;
    const uint32_t address = slots->address + offset;
    if (!inside(slots, offset, bytes)) {
        return -1;
    }
    begin();
    set_flash_register(CR, CR_PG | CR_PSIZE_32);
    for (uint32_t i = 0; i < bytes; i += 4u) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)data + i, sizeof word);
        write_flash(address + i, word);
        wait();
    }
    const int status = end();
    forget_cached(address, bytes);
    return status;
}

static int read(void *user, uint32_t offset, void *data, uint32_t bytes)
{
    const stm32f7_flash *const slots = user;
    if (!inside(slots, offset, bytes)) {
        return -1;
    }
    read_flash(slots->address + offset, data, bytes);
    return 0;
}

tt_storage stm32f7_flash_storage(const stm32f7_flash *slots, uint32_t slot_bytes, uint32_t erase_bytes)
{
    const tt_storage storage = {
        .erase = erase,
        .program = program,
        .read = read,
        .user = (void *)(uintptr_t)slots, /* only read */
        .slot_bytes = slot_bytes,
        .erase_bytes = erase_bytes,
        .program_bytes = 4u,
    };
    return storage;
}
