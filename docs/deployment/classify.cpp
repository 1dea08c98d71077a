// classify MODEL IMAGES LOGITS: runs a TorchScript model on a tensor that torch.save wrote, and writes what it returns.
#include <torch/script.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

static std::vector<char> read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: classify MODEL IMAGES LOGITS\n";
    return 2;
  }
  torch::jit::Module model = torch::jit::load(argv[1]);
  model.eval();
  const torch::Tensor images = torch::jit::pickle_load(read(argv[2])).toTensor();

  const torch::NoGradGuard no_grad;
  const torch::Tensor logits = model.forward({images}).toTensor();
  std::cout << "classes:" << std::endl << logits.argmax(1) << std::endl;

  const std::vector<char> bytes = torch::jit::pickle_save(logits);
  std::ofstream(argv[3], std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
