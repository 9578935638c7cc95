using PeftServer.Engine.Hub;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A frozen base model. <see cref="Plan(string, ModelHead?)"/> makes it as shapes alone, without libtorch: paths, sites, counts. <see cref="Load"/>
/// fills the same object with tensors.
/// </summary>
public abstract class PretrainedModel : Module, IDisposable
{
    private bool _hasNewHead;

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

    /// <summary>Name of the body under its head, transformers' <c>base_model_prefix</c>.</summary>
    protected virtual string BasePrefix => "model";

    /// <summary>Today's name of a tensor that older checkpoints of the architecture name otherwise.</summary>
    protected virtual string Rename(string name) => name;

    public IEnumerable<Site> Sites() => Modules().OfType<Site>();

    /// <summary>All parameters, a tied one once.</summary>
    public long ParameterCount => Weights().Where(weight => !weight.IsBuffer).Sum(weight => weight.ElementCount);

    /// <summary>The model that the config of <paramref name="folder"/> describes, as shapes alone.</summary>
    public static PretrainedModel Plan(string folder, ModelHead? head = null) => Plan(PretrainedConfig.Read(folder), head);

    /// <summary>
    /// The model that <paramref name="config"/> describes, as shapes alone; under <paramref name="head"/>, or else the one that the
    /// config names.
    /// </summary>
    public static PretrainedModel Plan(PretrainedConfig config, ModelHead? head = null)
    {
        config.RefuseSizes();
        var model = Create(config, head);
        model._hasNewHead = head is not null && head != ModelCatalog.HeadOf(config);
        config.RefuseUnread();
        model.Name();
        return model;
    }

    private static PretrainedModel Create(PretrainedConfig config, ModelHead? head)
    {
        try
        {
            return ModelCatalog.Create(config, head);
        }
        catch (Exception e) when (e is ArithmeticException or ArgumentException or IndexOutOfRangeException)
        {
            throw new CheckpointException($"config.json: its sizes do not fit together: {e.Message}", e);
        }
    }

    /// <summary>
    /// Loads the model in <paramref name="folder"/> (config.json and weights). Weights whose type is right already are views
    /// of the mapped file. A <paramref name="head"/> that the checkpoint was not saved with starts at random, drawn from
    /// <paramref name="seed"/>. Throws <see cref="CheckpointException"/> naming what is missing, unexpected or of the wrong shape.
    /// </summary>
    public static PretrainedModel Load(string folder, Device device, ScalarType dtype, ModelHead? head = null, int seed = 0)
    {
        var model = Plan(folder, head);
        try
        {
            using var checkpoint = Checkpoint.Open(folder);
            var placement = checkpoint.Fill(model.WeightPlan(), device, dtype);
            model.DrawHead(placement.Missing, device, dtype, seed);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Loads a model by its folder, its GGUF file or its id on the Hugging Face Hub (<c>owner/name</c>, <c>owner/name@revision</c>),
    /// which is fetched into the usual cache first: in three lines from a name to numbers. Throws as <see cref="Load"/> does, and
    /// <see cref="HubException"/>.
    /// </summary>
    /// <example><code>
    /// using var model = await PretrainedModel.LoadAsync("HuggingFaceTB/SmolLM2-135M", CPU, ScalarType.Float32);
    /// using var adapter = new LoraConfig { R = 8 }.CreateAdapter(model);
    /// adapter.PrintTrainableParameters();
    /// </code></example>
    public static async Task<PretrainedModel> LoadAsync(
        string folderOrId, Device device, ScalarType dtype, ModelHead? head = null, CancellationToken cancellationToken = default)
    {
        var folder = folderOrId;
        if (!Directory.Exists(folder) && !File.Exists(folder))
        {
            using var hub = new HubClient(HubOptions.FromEnvironment());
            folder = HubModelId.TryParse(folderOrId, out var id)
                ? await hub.DownloadAsync(id, cancellationToken: cancellationToken)
                : throw new CheckpointException($"'{folderOrId}' is neither a folder nor the id of a model on the Hub (owner/name).");
        }

        // Grad mode and scopes belong to a thread: all of the loading stays on one.
        return await Task.Run(() => Load(folder, device, dtype, head), cancellationToken);
    }

    /// <summary>What the model wants of a checkpoint.</summary>
    public WeightPlan WeightPlan() => new()
    {
        Weights = [.. Weights()],
        OtherNames = [.. OtherNames()],
        Pieces = Modules().OfType<Experts>().SelectMany(experts => experts.Pieces()).ToDictionary(),
        Rename = name => Rename(LegacyNorm(name)),
        BasePrefix = BasePrefix,
        Ignores = name => Ignores(name) || ((_hasNewHead || this is ClassificationModel { Kind: PredictionKind.Features }) && IsOfHead(Rename(name))),
        MayBeMissing = weight => _hasNewHead && IsOfHead(weight.Path),
    };

    /// <summary>Whether a name is outside of the body, or of its pooler, which comes and goes with the head.</summary>
    private bool IsOfHead(string name)
    {
        var inner = name.StartsWith($"{BasePrefix}.", StringComparison.Ordinal) ? name[(BasePrefix.Length + 1)..] : name;
        var body = Children().FirstOrDefault(child => child.Name == BasePrefix).Module?.Children() ?? Children();
        return inner.StartsWith("pooler.", StringComparison.Ordinal)
            || (inner.Length == name.Length && !body.Any(child => name.StartsWith($"{child.Name}.", StringComparison.Ordinal) || name == child.Name));
    }

    /// <summary>A new head as transformers starts it: small random maps, no bias, norms that change nothing.</summary>
    private void DrawHead(IReadOnlyList<Weight> weights, Device device, ScalarType dtype, int seed)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)seed);
        var scales = Sites().Where(site => site is LayerNorm or RmsNorm).Select(site => site.Weight).ToHashSet();
        foreach (var weight in weights)
        {
            var shape = weight.Shape.ToArray();
            var start = weight.Shape.Count > 1
                ? randn(shape, generator: generator).Times(Config.Number("initializer_range", 0.02))
                : scales.Contains(weight) ? ones(shape) : zeros(shape);
            weight.Set(start.to(dtype, device).MoveToOuterDisposeScope());
        }
    }

    /// <summary>TensorFlow's names of a norm's parameters, which BERT's first checkpoints have.</summary>
    private static string LegacyNorm(string name) => name switch
    {
        _ when name.EndsWith("LayerNorm.gamma", StringComparison.Ordinal) => $"{name[..^"gamma".Length]}weight",
        _ when name.EndsWith("LayerNorm.beta", StringComparison.Ordinal) => $"{name[..^"beta".Length]}bias",
        _ => name,
    };

    public void Dispose()
    {
        foreach (var weight in Weights())
        {
            weight.Unload();
        }

        GC.SuppressFinalize(this);
    }
}

/// <summary>A model that writes text token by token: hidden states of every token, logits of those that are asked for.</summary>
public abstract class LanguageModel(PretrainedConfig config) : PretrainedModel(config)
{
    /// <summary>Layers that keep keys and values while text is written.</summary>
    public abstract int LayerCount { get; }

    /// <summary>Tokens a sequence may have.</summary>
    public abstract int MaxLength { get; }

    /// <summary>The last hidden state of every token: [n, hidden].</summary>
    public abstract Tensor Hidden(ForwardBatch batch);

    /// <summary>Scores of the next token for hidden states [m, hidden]: [m, vocabulary].</summary>
    public abstract Tensor Logits(Tensor hidden, ForwardBatch batch);
}

/// <summary>A model that continues text.</summary>
public abstract class CausalLanguageModel(PretrainedConfig config) : LanguageModel(config);

/// <summary>
/// A model that reads one text and writes another. <see cref="Read"/> encodes the first; the batches of the second, which begin
/// with <see cref="StartToken"/>, carry what it gave.
/// </summary>
public abstract class Seq2SeqLanguageModel(PretrainedConfig config) : LanguageModel(config)
{
    /// <summary>The token every written text begins with.</summary>
    public int StartToken => Config.Has("decoder_start_token_id") ? Config.Int("decoder_start_token_id") : Config.Int("pad_token_id", 0);

    /// <summary>The encoder's last hidden state of every token: [m, hidden].</summary>
    public abstract Tensor Encode(ForwardBatch batch);

    /// <summary>Encodes texts that a decoder then looks at, under one set of adapters. The caller disposes of the result.</summary>
    public EncodedSource Read(IReadOnlyList<int[]> texts, IReadOnlyList<Adapters.Adapter> adapters, Generator? dropout = null)
    {
        var batch = ForwardBatch.Packed(texts, adapters, Device, dropout);
        try
        {
            return new EncodedSource(batch, Encode(batch));
        }
        catch
        {
            batch.Dispose();
            throw;
        }
    }
}
