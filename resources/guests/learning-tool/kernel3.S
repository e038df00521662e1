// Listing 12 of the article cited in kernel16.ld: prints a string with one instruction. Restored: .code16, start, greeting, and
// the hlt, without which the processor would execute the greeting. Current assemblers warn that `cs` has no effect on `lea`.
//
// Expected: "Hello, World!" and a newline, in a single exit if KVM batches string output, otherwise in 14 exits.
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
