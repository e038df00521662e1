// Listing 11 of the article that kernel16.ld names. The #define is put back: the article's text writes to port 0xf1.
#ifndef __RUNTIME_H__
#define __RUNTIME_H__

// port to use for general purpose output
#define IO_PORT_PSEUDO_SERIAL 0xf1

#endif /* __RUNTIME_H_ */
