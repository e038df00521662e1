// Listing 12 of the article that kernel16.ld names: a string by one instruction. Put back: .code16, start, greeting, and the hlt
// without which the processor would run into the greeting. Today's assembler warns that `lea` takes no notice of `cs`.
//
// To be seen: "Hello, World!" and a new line, in one exit where the KVM hands a string over whole, in 14 where it doesn't.
#include "runtime.h"

.code16
start:
    mov     $(IO_PORT_PSEUDO_SERIAL), %dx
    cs lea  greeting, %si
    mov     $14, %cx
    cs rep/outsb    // kvm_stat reports only
                    // *one* io_exit using this
    hlt

.align 16
greeting:
    .asciz  "Hello, World!\n"

. = 0xfff0
    ljmp    $0xf000, $start
