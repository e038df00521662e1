/*
 * The guest of kvm-hello-world, as listed in an article about it: prints a message, stores 42 at 0x400 and halts with 42 in the
 * accumulator. It is built as in the article's Makefile, linked at 0, and relies on the mode, flat segments and a stack.
 *
 * guest32 and guest64 are built from this source for 32 and 64 bits; guest64-tables also links tables.S.
 * Expected: the text, rax = 42, and 42 at 0x400.
 */
#include <stdint.h>

static void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0,%1" : : "a"(value), "Nd"(port) : "memory");
}

void __attribute__((noreturn)) __attribute__((section(".start"))) _start(void)
{
    const char *p;

    for (p = "Hello, World!\n"; *p; ++p)
        outb(0xE9, (uint8_t)*p);
    *(volatile long *)0x400 = 42;
    for (;;)
        __asm__ volatile("hlt" : : "a"(42) : "memory");
}
