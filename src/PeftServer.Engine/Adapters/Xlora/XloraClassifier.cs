using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Xlora;

/// <summary>Linear layers with relu between, from a hidden state to a score for each expert, or for each at each adapted module.</summary>
internal sealed class XloraClassifier
{
    private readonly XloraConfig _config;
    private readonly List<DenseLayer> _layers;
    private readonly int _experts;
    private readonly int _modules;

    public XloraClassifier(XloraConfig config, int experts, int modules)
    {
        (_config, _experts, _modules) = (config, experts, modules);
        var apart = config.XloraDropoutP > 0 ? 3 : 2; // numbers count the relu, and the dropout where there is one
        var outputs = config.LayerwiseScalings ? experts * modules : experts;
        _layers = [.. Enumerable.Range(0, config.XloraDepth).Select(i => new DenseLayer(
            $"layers.{i * apart}", i == 0 ? config.HiddenSize!.Value : config.XloraSize, i == config.XloraDepth - 1 ? outputs : config.XloraSize))];
    }

    public IEnumerable<(string Name, Weight Weight)> Weights => _layers.SelectMany(layer => layer.Weights);

    public void Initialize(Generator generator, Device device) => _layers.ForEach(layer => layer.Initialize(generator, device));

    /// <summary>Hidden states [n, hidden] → mixes [n, modules, experts].</summary>
    public Tensor Mixes(Tensor hidden, Generator? dropout)
    {
        using var scope = NewDisposeScope();
        var x = hidden.to(ScalarType.Float32);
        for (var i = 0; i < _layers.Count; i++)
        {
            x = _layers[i].Forward(x);
            x = i < _layers.Count - 1 ? Dropout.Apply(x.relu(), _config.XloraDropoutP, dropout) : x;
        }

        x = _config.LayerwiseScalings ? x.view(-1, _modules, _experts) : x.unsqueeze(1).expand(-1, _modules, -1);
        return (_config.EnableSoftmax ? x.Times(1 / _config.SoftmaxTemperature).softmax(-1) : x).MoveToOuterDisposeScope();
    }

    /// <summary>The mixes of the first pass, the same everywhere.</summary>
    public Tensor Constant(int tokens, PretrainedModel model)
    {
        using var value = _config.ScalingPassValue.ToScalar();
        return full([tokens, _modules, _experts], value, dtype: ScalarType.Float32, device: model.Device);
    }

    /// <summary>A module's mix [n, experts] with the best alone, normalised among them where the settings say so.</summary>
    public Tensor Choose(Tensor mix)
    {
        if (_config.TopKLora is { } best)
        {
            var places = mix.topk(best, -1).indexes;
            mix = mix.mul(zeros_like(mix).scatter(-1, places, ones_like(mix)));
        }

        if (!_config.EnableSoftmaxTopk)
        {
            return mix;
        }

        var off = mix.eq(TensorArithmetic.Zero);
        return mix.masked_fill(off, TensorArithmetic.NegativeInfinity).softmax(-1).masked_fill(off, TensorArithmetic.Zero);
    }
}
