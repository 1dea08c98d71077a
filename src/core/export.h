#pragma once

// What other libraries call in libelsa_cpu; everything else in it is hidden.
#if defined(_WIN32)
#define ELSA_EXPORT __declspec(dllexport)
#else
#define ELSA_EXPORT __attribute__((visibility("default")))
#endif
