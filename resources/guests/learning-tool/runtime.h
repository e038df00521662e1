// Listing 11 of the article cited in kernel16.ld. The #define is restored: according to the article, the port is 0xf1.
#ifndef __RUNTIME_H__
#define __RUNTIME_H__

// port to use for general purpose output
#define IO_PORT_PSEUDO_SERIAL 0xf1

#endif /* __RUNTIME_H_ */
