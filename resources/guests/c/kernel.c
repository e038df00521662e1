/*
 * A kernel in C that any ELF loader can boot: prints "C in long mode" or "C in protected mode" to the debug console, then halts
 * with 42 in the accumulator. It sets up its own stack and relies only on the mode and flat segments.
 *
 * kernel64 is an ET_EXEC at 2 MiB, kernel32 the same as ELF32. kernel64-pie is position-independent (ET_DYN): the words below
 * are accessed through pointers, so the text is correct only if the loader has relocated them (R_X86_64_RELATIVE).
 * Expected: the text, and rax = 42.
 */
#include "console.h"

#define ANSWER 42

#ifdef __x86_64__
#define MODE "long"
__asm__(".globl start\n"
    "start:\n"
    "    lea rsp, [rip + stack_top]\n"
    "    call kernel_main\n"
    "asleep:\n"
    "    hlt\n"
    "    jmp asleep\n");
#else
#define MODE "protected"
__asm__(".globl start\n"
    "start:\n"
    "    mov esp, offset stack_top\n"
    "    call kernel_main\n"
    "asleep:\n"
    "    hlt\n"
    "    jmp asleep\n");
#endif

__asm__(".pushsection .bss\n"
    ".balign 16\n"
    ".skip 4096\n"
    "stack_top:\n"
    ".popsection\n");

/* Volatile, so that the compiler can't look through the pointers. */
static const char *volatile words[] = {"C ", "in ", MODE, " mode", "\n"};

long kernel_main(void)
{
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        put(words[i]);
    return ANSWER;
}
