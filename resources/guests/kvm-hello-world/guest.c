/*
 * The guest of the program kvm-hello-world, as an article on it lists it: it prints, stores 42 at 0x400 and halts with 42 in the
 * accumulator. It is built as its Makefile does, linked at 0, and relies on the mode, flat segments and a stack.
 *
 * guest32 and guest64 are the same source with 32 and 64 bits; guest64-tables has tables.S beside it.
 * To be seen: the text, rax = 42, and 42 at 0x400.
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
