/*
 * A driver for vsock, the first virtio device, in protected mode: connects to port 1024 of the host, sends 259,032 bytes, of which
 * byte i is i modulo 251, and shuts the connection down. This is within the credit of 256 KiB, so nothing is waited for, and more
 * than the host's kernel buffers for a program that reads nothing (net.core.wmem_default: 208 KiB). After that it resets the machine
 * when a byte is received on COM1. Polls its queues (virtio 1.2 §2.7, §4.2.2, §5.10.6).
 *
 * Expected: "sent" on the debug console, and all of the data at the host's program.
 */
#include "console.h"

#define DEVICE 0xd0000000
#define PIECES 4
/* A multiple of 251, so that all pieces are the same. */
#define PIECE_LEN 64758
#define QUEUE_LEN 8
#define GUEST_PORT 5000
#define HOST_PORT 1024

#define COM1 0x3f8
#define LINE_STATUS (COM1 + 5)
#define DATA_READY 1
#define KEYBOARD_CONTROLLER 0x64
#define PULSE_RESET 0xfe

/* The operations of a packet that are used here, and the queues. */
enum { REQUEST = 1, RESPONSE = 2, SHUTDOWN = 4, DATA = 5 };
enum { RECEIVE = 0, TRANSMIT = 1 };
#define STREAM 1
#define SHUT_BOTH 3

struct packet {
    uint64_t source_id, destination_id;
    uint32_t source_port, destination_port, len;
    uint16_t type, operation;
    uint32_t flags, credit, forwarded;
    uint8_t data[PIECE_LEN];
} __attribute__((packed));

#define HEADER_LEN 44

struct descriptor {
    uint64_t address;
    uint32_t len;
    uint16_t flags, next;
};

#define DEVICE_WRITES 2

/* The rings; the used ring's entries are of no interest. Rows have a multiple of 4 bytes, as the used ring requires. */
static struct descriptor table[2][QUEUE_LEN] __attribute__((aligned(16)));
static volatile uint16_t available[2][3 + QUEUE_LEN] __attribute__((aligned(2)));
static volatile uint16_t used[2][4 + 4 * QUEUE_LEN] __attribute__((aligned(4)));
static struct packet incoming, outgoing;

__asm__(".globl start\n"
    "start:\n"
    "    mov esp, offset stack_top\n"
    "    call kernel_main\n"
    ".pushsection .bss\n"
    ".balign 16\n"
    ".skip 4096\n"
    "stack_top:\n"
    ".popsection\n");

static void write_register(uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(DEVICE + offset) = value;
}

static void start_queue(uint32_t queue)
{
    write_register(0x30, queue);
    write_register(0x38, QUEUE_LEN);
    write_register(0x80, (uint32_t)table[queue]);
    write_register(0x90, (uint32_t)available[queue]);
    write_register(0xa0, (uint32_t)used[queue]);
    write_register(0x44, 1);
}

/* Reset, acknowledge, driver, features, queues, ready (virtio 1.2 §3.1.1). */
static void start_device(void)
{
    write_register(0x70, 0);
    write_register(0x70, 1);
    write_register(0x70, 3);
    write_register(0x24, 1);
    write_register(0x20, 1); /* VIRTIO_F_VERSION_1, bit 32 */
    write_register(0x70, 11);
    start_queue(RECEIVE);
    start_queue(TRANSMIT);
    write_register(0x70, 15);
}

/* Gives the device the packet, in descriptor 0, and waits until it has used that. */
static void exchange(uint32_t queue, struct packet *packet, uint32_t len, uint16_t flags)
{
    uint16_t next = available[queue][1];

    table[queue][0] = (struct descriptor){(uint32_t)packet, len, flags, 0};
    available[queue][2 + next % QUEUE_LEN] = 0;
    __sync_synchronize();
    available[queue][1] = ++next;
    __sync_synchronize();
    write_register(0x50, queue);
    while (used[queue][1] != next)
        __asm__ volatile("pause");
}

static void send(uint16_t operation, uint32_t len, uint32_t flags)
{
    outgoing.source_id = 3;
    outgoing.destination_id = 2;
    outgoing.source_port = GUEST_PORT;
    outgoing.destination_port = HOST_PORT;
    outgoing.len = len;
    outgoing.type = STREAM;
    outgoing.operation = operation;
    outgoing.flags = flags;
    exchange(TRANSMIT, &outgoing, HEADER_LEN + len, 0);
}

void kernel_main(void)
{
    uint8_t status, value = 0;

    start_device();
    send(REQUEST, 0, 0);
    do
        exchange(RECEIVE, &incoming, sizeof(incoming), DEVICE_WRITES);
    while (incoming.operation != RESPONSE);
    for (int i = 0; i < PIECE_LEN; i++) {
        outgoing.data[i] = value;
        value = value == 250 ? 0 : value + 1;
    }
    for (int piece = 0; piece < PIECES; piece++)
        send(DATA, PIECE_LEN, 0);
    send(SHUTDOWN, 0, SHUT_BOTH);
    put("sent\n");
    do
        __asm__ volatile("in %0, %1" : "=a"(status) : "d"((uint16_t)LINE_STATUS));
    while (!(status & DATA_READY));
    __asm__ volatile("in %0, %1" : "=a"(status) : "d"((uint16_t)COM1));
    port_write(KEYBOARD_CONTROLLER, PULSE_RESET);
    for (;;)
        __asm__ volatile("hlt");
}
