using PeftServer.Engine.Quantization;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A frozen base model. <see cref="Plan(string)"/> makes it as shapes alone, without libtorch: paths, sites, counts. <see cref="Load"/>
/// fills the same object with tensors.
/// </summary>
public abstract class PretrainedModel : Module, IDisposable
{
    protected PretrainedModel(PretrainedConfig config) => Config = config;

    public PretrainedConfig Config { get; }

    /// <summary>Where the weights are. Throws for a model that is shapes alone.</summary>
    public Device Device => Weights().First().Value.device;

    /// <summary>Type of the weights and of what flows between them.</summary>
    public ScalarType Dtype => Weights().First().Value.dtype;

    /// <summary>Vectors of the residual stream have this width.</summary>
    public abstract int HiddenSize { get; }

    /// <summary>Path of the projection that makes logits; "all-linear" leaves it out.</summary>
    public virtual string? OutputHead => null;

    /// <summary>Names that a checkpoint may bring although the model does not use them.</summary>
    protected virtual bool Ignores(string name) => false;

    public IEnumerable<Site> Sites() => Modules().OfType<Site>();

    /// <summary>All parameters, a tied one once.</summary>
    public long ParameterCount => Weights().Sum(weight => weight.ElementCount);

    /// <summary>The model that the config of <paramref name="folder"/> describes, as shapes alone.</summary>
    public static PretrainedModel Plan(string folder) => Plan(PretrainedConfig.Read(folder));

    /// <summary>The model that <paramref name="config"/> describes, as shapes alone.</summary>
    public static PretrainedModel Plan(PretrainedConfig config)
    {
        var model = ModelCatalog.Create(config);
        model.Name();
        return model;
    }

    /// <summary>
    /// Loads the model in <paramref name="folder"/> (config.json and safetensors). Weights whose type is right already are views
    /// of the mapped file. With <paramref name="quantization"/> each matrix of the blocks is packed as soon as it is there, so that the whole
    /// is never in memory. Throws <see cref="CheckpointException"/> naming what is missing, unexpected or of the wrong shape.
    /// </summary>
    public static PretrainedModel Load(string folder, Device device, ScalarType dtype, BaseQuantization quantization = BaseQuantization.None)
    {
        var model = Plan(folder);
        try
        {
            using var checkpoint = Checkpoint.Open(folder);
            var packable = model.PackableWeights(quantization);
            checkpoint.Fill(model.Weights(), device, dtype, model.Ignores, weight => packable.Contains(weight) ? quantization : BaseQuantization.None);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>
    /// The matrices that quantization packs: those of linear maps, but for the output head and what shares its tensor with an embedding. For
    /// fp8 the first blocks' stay as they are: the stream is still small there, so what 8-bit activations add weighs most.
    /// </summary>
    public IReadOnlySet<Weight> PackableWeights(BaseQuantization quantization)
    {
        const int Spared = 4;
        return Sites().OfType<Linear>()
            .Where(linear => quantization is not BaseQuantization.None && linear.Path != OutputHead)
            .Where(linear => quantization is not BaseQuantization.Fp8 || Block(linear.Path) is not { } block || block >= Spared)
            .Select(linear => linear.weight)
            .Except(Sites().OfType<Embedding>().Select(embedding => embedding.weight)).ToHashSet();

        static int? Block(string path) => path.Split('.').Select(part => int.TryParse(part, out var number) ? number : (int?)null).FirstOrDefault(number => number is not null);
    }

    public void Dispose()
    {
        foreach (var weight in Weights())
        {
            weight.Unload();
        }

        GC.SuppressFinalize(this);
    }
}

/// <summary>A model that continues text: hidden states of every token, logits of those that are asked for.</summary>
public abstract class CausalLanguageModel(PretrainedConfig config) : PretrainedModel(config)
{
    public abstract int LayerCount { get; }

    /// <summary>Tokens a sequence may have.</summary>
    public abstract int MaxLength { get; }

    /// <summary>The last hidden state of every token: [n, hidden].</summary>
    public abstract Tensor Hidden(ForwardBatch batch);

    /// <summary>Scores of the next token for hidden states [m, hidden]: [m, vocabulary].</summary>
    public abstract Tensor Logits(Tensor hidden, ForwardBatch batch);
}
