/*
 * A C kernel that uses privilege rings, in long mode (rings64) or in protected mode with paging (rings32). It sets up a GDT with
 * segments for ring 3, a task state segment, an IDT with three gates, and page tables; then it starts a program in ring 3 and
 * logs its actions to the debug console, one per line. The program reads a kernel page, writes to a port, and makes two system
 * calls with `int 0x80`, to print a string and to exit. ESI holds the address at which to resume after a forbidden access.
 *
 * Its loader provides the mode, flat segments and, in protected mode, CR4.PSE. Source: Intel SDM volume 3, chapters 4 (paging),
 * 5 (protection), 6 (interrupts and exceptions) and 7 (tasks).
 * Expected: six lines, in order, then a halt with 42, the program's exit status, in the accumulator. A software KVM may not
 * emulate `int` in protected and long mode: then four lines and a triple fault at cd 80.
 */
#include "console.h"

/* The program's virtual and physical addresses: 1 GiB and 4 MiB. */
#define PROGRAM 0x40000000
#define PROGRAM_MEMORY 0x400000
#define PROGRAM_STACK (PROGRAM + 0x10000)
/* The program's page has 2 MiB, or 4 MiB in protected mode, of which this much is checked. */
#define PROGRAM_LEN 0x200000
/* The kernel's first address. */
#define KERNEL 0x200000

/* Selectors: GDT offsets, with the ring in the low two bits. */
#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE (0x18 | 3)
#define USER_DATA (0x20 | 3)
#define TASK 0x28

#define GENERAL_PROTECTION 13
#define PAGE_FAULT 14
#define SYSTEM_CALL 0x80

#define SYSTEM_CALL_PRINT 1
#define SYSTEM_CALL_EXIT 2

/* The opcode of `out` with an 8-bit immediate port. */
#define OUT_IMMEDIATE 0xe6

#define TEXT(number) #number
#define NUMBER(number) TEXT(number)

#ifdef __x86_64__
#define MODE "long mode"
typedef uint64_t word;
#else
#define MODE "protected mode"
typedef uint32_t word;
#endif

/* What the processor and the stubs below push, in order of address. */
struct frame {
#ifdef __x86_64__
    word r11, r10, r9, r8;
#endif
    word di, si, bp, bx, dx, cx, ax;
    word vector, error;
    word ip, cs, flags, sp, ss;
};

#ifdef __x86_64__
#define SP "rsp"
#define SAVE_MORE "push r8\n push r9\n push r10\n push r11\n"
#define RESTORE_MORE "pop r11\n pop r10\n pop r9\n pop r8\n"
#define CALL_TRAP "mov rdi, rsp\n call trap\n"
#define SAVE "push rax\n push rcx\n push rdx\n push rbx\n push rbp\n push rsi\n push rdi\n"
#define RESTORE "pop rdi\n pop rsi\n pop rbp\n pop rbx\n pop rdx\n pop rcx\n pop rax\n"
#define RETURN "add rsp, 16\n iretq\n"
#define FAR_RETURN "retfq\n"
#else
#define SP "esp"
#define SAVE_MORE
#define RESTORE_MORE
#define CALL_TRAP "push esp\n call trap\n pop eax\n"
#define SAVE "push eax\n push ecx\n push edx\n push ebx\n push ebp\n push esi\n push edi\n"
#define RESTORE "pop edi\n pop esi\n pop ebp\n pop ebx\n pop edx\n pop ecx\n pop eax\n"
#define RETURN "add esp, 8\n iretd\n"
#define FAR_RETURN "retf\n"
#endif

/* The entry point and the trap stubs. On a trap, the processor has switched to the stack given in the task state segment. */
__asm__(".globl start\n"
    "start:\n"
    "    mov " SP ", offset stack_top\n"
    "    call kernel_main\n"
    "trap_general_protection:\n"
    "    push " NUMBER(GENERAL_PROTECTION) "\n"
    "    jmp trapped\n"
    "trap_page_fault:\n"
    "    push " NUMBER(PAGE_FAULT) "\n"
    "    jmp trapped\n"
    "trap_system_call:\n"
    "    push 0\n" /* in place of an exception's error code */
    "    push " NUMBER(SYSTEM_CALL) "\n"
    "trapped:\n"
    "    cld\n"
    SAVE SAVE_MORE CALL_TRAP RESTORE_MORE RESTORE RETURN
    ".pushsection .bss\n"
    ".balign 16\n"
    ".skip 4096\n"
    "stack_top:\n"
    ".skip 4096\n"
    "trap_stack_top:\n"
    ".popsection\n");

/* The ring 3 program, which is copied to its page. */
__asm__(".pushsection .rodata\n"
    "program:\n"
    "    mov esi, " NUMBER(PROGRAM) " + (after_read - program)\n"
    "    mov ebx, " NUMBER(KERNEL) "\n"
    "    mov eax, [ebx]\n"
    "after_read:\n"
    "    mov esi, " NUMBER(PROGRAM) " + (after_out - program)\n"
    "    out " NUMBER(DEBUG_CONSOLE) ", al\n"
    "after_out:\n"
    "    mov eax, " NUMBER(SYSTEM_CALL_PRINT) "\n"
    "    mov ebx, " NUMBER(PROGRAM) " + (greeting - program)\n"
    "    int " NUMBER(SYSTEM_CALL) "\n"
    "    mov eax, " NUMBER(SYSTEM_CALL_EXIT) "\n"
    "    mov ebx, 42\n"
    "    int " NUMBER(SYSTEM_CALL) "\n"
    "greeting:\n"
    "    .asciz \"hello\"\n"
    "program_end:\n"
    ".popsection\n");

extern const uint8_t program[], program_end[];
extern uint8_t trap_general_protection[], trap_page_fault[], trap_system_call[], trap_stack_top[];

/* Flat segments; those for ring 0 and ring 3 differ only in the DPL. */
#ifdef __x86_64__
#define CODE(dpl) (0x00af9b000000ffff | (uint64_t)(dpl) << 45)
#else
#define CODE(dpl) (0x00cf9b000000ffff | (uint64_t)(dpl) << 45)
#endif
#define DATA(dpl) (0x00cf93000000ffff | (uint64_t)(dpl) << 45)

/* Null, code and data for ring 0 and for ring 3, and the task state segment, which takes two entries in long mode. */
static uint64_t gdt[7] = {0, CODE(0), DATA(0), CODE(3), DATA(3)};

/* Used only for the ring 0 stack. Its limit leaves no room for an I/O permission bitmap, so ring 3 has no access to ports. */
static struct {
#ifdef __x86_64__
    uint32_t reserved;
    uint64_t sp0;
    uint32_t unused[22];
    uint32_t ports_at;
#else
    uint32_t previous;
    uint32_t sp0, ss0;
    uint32_t unused[22];
    uint32_t ports_at;
#endif
} __attribute__((packed)) task;

/* Gates: two 32-bit words in protected mode, four in long mode. */
static uint32_t idt[SYSTEM_CALL + 1][sizeof(word) / 2] __attribute__((aligned(16)));

/* Page table entry flags, and the tables. */
#define PRESENT 1
#define WRITABLE 2
#define USER 4
#define LARGE 0x80

static word top[4096 / sizeof(word)] __attribute__((aligned(4096)));
#ifdef __x86_64__
static word pdpt[512] __attribute__((aligned(4096)));
static word kernel_directory[512] __attribute__((aligned(4096)));
static word program_directory[512] __attribute__((aligned(4096)));
#endif

struct table_register {
    uint16_t limit;
    word base;
} __attribute__((packed));

static void load_gdt(void)
{
    struct table_register gdtr = {sizeof(gdt) - 1, (word)gdt};
    word base = (word)&task, limit = sizeof(task) - 1;

    task.sp0 = (word)trap_stack_top;
#ifndef __x86_64__
    task.ss0 = KERNEL_DATA;
#endif
    task.ports_at = sizeof(task) << 16;
    /* Present, an available 32- or 64-bit task state segment; the kernel is below 16 MiB. */
    gdt[TASK / 8] = limit | (uint64_t)base << 16 | (uint64_t)0x89 << 40;
    __asm__ volatile("lgdt %0\n"
        "push %1\n"
        "push offset own_segments\n"
        FAR_RETURN
        "own_segments:\n"
        "mov ss, %2\n"
        "ltr %w3\n"
        : : "m"(gdtr), "i"(KERNEL_CODE), "r"(KERNEL_DATA), "r"(TASK) : "memory");
}

/* `ring` is the least privileged ring that may use the gate with `int`. */
static void set_gate(unsigned vector, const uint8_t *stub, unsigned ring)
{
    uint32_t address = (uint32_t)(word)stub;

    idt[vector][0] = KERNEL_CODE << 16 | (address & 0xffff);
    /* Present, a 32- or 64-bit interrupt gate. */
    idt[vector][1] = (address & 0xffff0000) | 0x8e00 | ring << 13;
}

static void load_idt(void)
{
    struct table_register idtr = {sizeof(idt) - 1, (word)idt};

    set_gate(GENERAL_PROTECTION, trap_general_protection, 0);
    set_gate(PAGE_FAULT, trap_page_fault, 0);
    set_gate(SYSTEM_CALL, trap_system_call, 3);
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

/* Identity-maps the first 4 MiB for the kernel, and maps the program's page for ring 3. */
static void load_page_tables(void)
{
#ifdef __x86_64__
    top[0] = (word)pdpt | PRESENT | WRITABLE | USER;
    pdpt[0] = (word)kernel_directory | PRESENT | WRITABLE;
    pdpt[PROGRAM >> 30] = (word)program_directory | PRESENT | WRITABLE | USER;
    kernel_directory[0] = 0 | PRESENT | WRITABLE | LARGE;
    kernel_directory[1] = 0x200000 | PRESENT | WRITABLE | LARGE;
    program_directory[0] = PROGRAM_MEMORY | PRESENT | WRITABLE | USER | LARGE;
#else
    top[0] = 0 | PRESENT | WRITABLE | LARGE;
    top[PROGRAM >> 22] = PROGRAM_MEMORY | PRESENT | WRITABLE | USER | LARGE;
#endif
    __asm__ volatile("mov cr3, %0" : : "r"(top) : "memory");
}

static void start_program(void)
{
    volatile uint8_t *to = (volatile uint8_t *)PROGRAM;

    for (const uint8_t *from = program; from < program_end; from++)
        *to++ = *from;
    /* An interrupt return frame: SS, SP, flags with interrupts disabled and IOPL 0, CS, IP. */
    __asm__ volatile("mov ds, %0\n"
        "mov es, %0\n"
        "push %1\n"
        "push %2\n"
        "push 2\n"
        "push %3\n"
        "push %4\n"
#ifdef __x86_64__
        "iretq\n"
#else
        "iretd\n"
#endif
        : : "r"(USER_DATA), "i"(USER_DATA), "i"(PROGRAM_STACK), "i"(USER_CODE), "i"(PROGRAM) : "memory");
}

static void stop(word result)
{
    for (;;)
        __asm__ volatile("cli\n hlt" : : "a"(result));
}

static void put_ring(const struct frame *frame)
{
    put("ring ");
    put_decimal(frame->cs & 3);
}

static void system_call(struct frame *frame)
{
    put("system call from ");
    put_ring(frame);
    if (frame->ax == SYSTEM_CALL_PRINT && frame->bx >= PROGRAM && frame->bx < PROGRAM + PROGRAM_LEN) {
        put(": print \"");
        put((const char *)frame->bx);
        put("\"\n");
    } else if (frame->ax == SYSTEM_CALL_EXIT) {
        put(": end with ");
        put_decimal((uint32_t)frame->bx);
        put("\n");
        stop(frame->bx);
    } else {
        put(": none that there is\n");
    }
}

static void page_fault(struct frame *frame)
{
    word address;

    __asm__ volatile("mov %0, cr2" : "=r"(address));
    put("page fault at ");
    put_hex(address, 8);
    put(", error ");
    put_hex(frame->error, 1);
    put(": a ");
    put(frame->error & 2 ? "write" : "read");
    put(" by ");
    put_ring(frame);
    put(frame->error & 1 ? " of a page that isn't its own\n" : " where no page is\n");
}

void trap(struct frame *frame)
{
    switch (frame->vector) {
    case SYSTEM_CALL:
        system_call(frame);
        return;
    case PAGE_FAULT:
        page_fault(frame);
        break;
    case GENERAL_PROTECTION:
        put("general protection fault, error ");
        put_hex(frame->error, 1);
        put(": ");
        put_ring(frame);
        put(*(const uint8_t *)frame->ip == OUT_IMMEDIATE ? " has no ports\n" : " may not do that\n");
        break;
    }
    /* A fault in ring 0 is a bug in the kernel. */
    if ((frame->cs & 3) == 0)
        stop(0);
    frame->ip = frame->si;
}

void kernel_main(void)
{
    load_gdt();
    load_idt();
    load_page_tables();
    put("a kernel in C in ring 0, " MODE "\n");
    put("page tables: ");
    put_hex(PROGRAM, 8);
    put(" is at ");
    put_hex(PROGRAM_MEMORY, 6);
    put(", for ring 3\n");
    start_program();
}
