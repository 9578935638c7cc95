using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Prompts;

/// <summary>A trained nn.Linear of an encoder or a classifier: y = x Wᵀ + b.</summary>
internal sealed class DenseLayer(string name, int inFeatures, int outFeatures)
{
    private readonly Weight _weight = new(outFeatures, inFeatures) { Trainable = true };
    private readonly Weight _bias = new(outFeatures) { Trainable = true };

    public IEnumerable<(string Name, Weight Weight)> Weights => [($"{name}.weight", _weight), ($"{name}.bias", _bias)];

    public Tensor Forward(Tensor x) => F.linear(x, _weight.Value.to(x.dtype), _bias.Value.to(x.dtype)); // [n, out]

    /// <summary>As nn.Linear starts: both uniform within 1/√in.</summary>
    public void Initialize(Generator generator, Device device)
    {
        _weight.Kaiming(inFeatures, generator, device);
        _bias.Kaiming(inFeatures, generator, device);
    }

    public void Zeros(Device device)
    {
        _weight.Zeros(device);
        _bias.Zeros(device);
    }
}
