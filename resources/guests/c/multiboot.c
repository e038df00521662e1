/*
 * A multiboot kernel in C: prints the information passed by its loader, one item per line, and ends the machine through
 * debug-exit with 21, which is exit code 43. Its entry point is in multiboot.S. Expected:
 *
 *     magic ok                                   or only "magic" and the wrong value of eax
 *     cs 0x0028 protected 1                      the selector loaded by multiboot.S, and CR0.PE
 *     cmdline [one two]                          or "no cmdline"
 *     mem_upper 31744                            KiB above 1 MiB; or "no mem_upper"
 *     map 0x0000000000000000 0x000000000009fc00 1    base, length and type of each entry; or "no map"
 *     module [its command line] 1234 0x811c9dc5  length and 32-bit FNV-1a of each; or "modules 0"
 *
 * Source: Multiboot Specification 0.6.96 §3.3.
 */
#include "console.h"

#define LOADER_MAGIC 0x2badb002
#define DEBUG_EXIT 0xf4
#define EXIT_VALUE 21

/* Which fields of the structure are valid. */
#define HAS_MEMORY (1u << 0)
#define HAS_CMDLINE (1u << 2)
#define HAS_MODULES (1u << 3)
#define HAS_MAP (1u << 6)

struct info {
    uint32_t flags;
    uint32_t mem_lower, mem_upper;
    uint32_t boot_device;
    uint32_t cmdline;
    uint32_t mods_count, mods_addr;
    uint32_t syms[4];
    uint32_t mmap_length, mmap_addr;
};

struct module {
    uint32_t start, end;
    uint32_t cmdline;
    uint32_t reserved;
};

/* `size` doesn't include itself, so the next entry is at size + 4. */
struct map_entry {
    uint32_t size;
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

static const void *at(uint32_t address)
{
    return (const void *)(uintptr_t)address;
}

static uint32_t fnv1a(const uint8_t *first, const uint8_t *end)
{
    uint32_t hash = 0x811c9dc5;

    while (first < end)
        hash = (hash ^ *first++) * 0x01000193;
    return hash;
}

static void put_mode(void)
{
    uint32_t cr0;
    uint16_t cs;

    __asm__("mov %0, cr0" : "=r"(cr0));
    __asm__("mov %0, cs" : "=r"(cs));
    put("cs ");
    put_hex(cs, 4);
    put(" protected ");
    put_decimal(cr0 & 1);
    put("\n");
}

static void put_text(const char *before, uint32_t text, const char *after)
{
    put(before);
    put(" [");
    put(at(text));
    put("]");
    put(after);
}

static void put_map(const struct info *info)
{
    uint32_t next = info->mmap_addr;

    while (next < info->mmap_addr + info->mmap_length) {
        const struct map_entry *entry = at(next);

        put("map ");
        put_hex(entry->base, 16);
        put(" ");
        put_hex(entry->length, 16);
        put(" ");
        put_decimal(entry->type);
        put("\n");
        next += entry->size + sizeof(entry->size);
    }
}

static void put_modules(const struct info *info)
{
    const struct module *module = at(info->mods_addr);

    for (uint32_t i = 0; i < info->mods_count; i++, module++) {
        put_text("module", module->cmdline, " ");
        put_decimal(module->end - module->start);
        put(" ");
        put_hex(fnv1a(at(module->start), at(module->end)), 8);
        put("\n");
    }
}

static void report(const struct info *info)
{
    put_mode();
    if (info->flags & HAS_CMDLINE)
        put_text("cmdline", info->cmdline, "\n");
    else
        put("no cmdline\n");
    if (info->flags & HAS_MEMORY) {
        put("mem_upper ");
        put_decimal(info->mem_upper);
        put("\n");
    } else {
        put("no mem_upper\n");
    }
    if (info->flags & HAS_MAP)
        put_map(info);
    else
        put("no map\n");
    if (info->flags & HAS_MODULES && info->mods_count)
        put_modules(info);
    else
        put("modules 0\n");
}

void kernel_main(uint32_t magic, const struct info *info)
{
    if (magic == LOADER_MAGIC) {
        put("magic ok\n");
        report(info);
    } else {
        put("magic ");
        put_hex(magic, 8);
        put("\n");
    }
    port_write(DEBUG_EXIT, EXIT_VALUE);
}
