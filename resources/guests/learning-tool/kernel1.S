// Listing 4 of the article that kernel16.ld names: an endless loop. The label 1 is put back.
//
// To be seen: all of one processor's time used, and no output.
.code16                   // Generate 16-bit code
start:                    // Kernel's main routine
        xor %ax, %ax
1:
        jmp 1b            // Loop forever

. = 0xfff0                // Entry point
        ljmp    $0xf000, $start
