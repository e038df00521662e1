/* Shared by the C kernels: port output and the debug console. They link no library. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdint.h>

#define DEBUG_CONSOLE 0xe9

static inline void port_write(uint16_t port, uint8_t value)
{
    __asm__ volatile("out %1, %0" : : "a"(value), "Nd"(port));
}

static inline void put(const char *text)
{
    while (*text)
        port_write(DEBUG_CONSOLE, (uint8_t)*text++);
}

/* Prints `digits` hex digits, prefixed with 0x. */
static inline void put_hex(uint64_t value, int digits)
{
    put("0x");
    while (digits--)
        port_write(DEBUG_CONSOLE, (uint8_t)"0123456789abcdef"[(value >> 4 * digits) & 15]);
}

static inline void put_decimal(uint32_t value)
{
    char text[11];
    char *first = &text[10];

    *first = 0;
    do {
        *--first = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put(first);
}

#endif
