// attend INPUTS OUT: reads the list of tensors that torch.save wrote, [query, key, conv_weight, proj_weight, value,
// ghost_mul, ghost_add], and writes the ghost head under its Hadamard attention, with three heads.
#include <elsa/ghost_head.h>
#include <elsa/hadamard_attention.h>
#include <torch/torch.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: attend INPUTS OUT\n";
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> saved{std::istreambuf_iterator<char>(file), {}};
  std::vector<torch::Tensor> in;
  for (const auto& tensor : torch::pickle_load(saved).toList().vec()) in.push_back(tensor.toTensor());

  constexpr int64_t heads = 3;
  const int64_t kernel_size = in.at(2).size(3);
  const torch::Tensor attn = elsa::hadamard_attention(in[0], in[1], in[2], std::nullopt, in[3], std::nullopt, heads);
  const torch::Tensor out = elsa::ghost_head(in[4], attn, in[5], in[6], kernel_size);
  std::cout << "out: " << out.sizes() << std::endl;

  const std::vector<char> bytes = torch::pickle_save(out);
  std::ofstream(argv[2], std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
