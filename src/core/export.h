#pragma once

// What other libraries call in libelsa_cpu; everything else in it is hidden.
#define ELSA_EXPORT __attribute__((visibility("default")))
