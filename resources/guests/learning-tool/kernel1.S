// Listing 4 of the article cited in kernel16.ld: an endless loop. The label 1 is restored.
//
// Expected: one processor fully used, and no output.
.code16                   // Generate 16-bit code
start:                    // Kernel's main routine
        xor %ax, %ax
1:
        jmp 1b            // Loop forever

. = 0xfff0                // Entry point
        ljmp    $0xf000, $start
