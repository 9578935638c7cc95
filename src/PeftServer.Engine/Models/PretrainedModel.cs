using PeftServer.Engine.Hub;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A frozen base model. <see cref="Plan(string, ModelHead?)"/> makes it as shapes alone, without libtorch: paths, sites, counts. <see cref="Load"/>
/// fills the same object with tensors.
/// </summary>
public abstract class PretrainedModel : Module, IDisposable
{
    private bool _hasNewHead;
    private (Device Device, ScalarType Dtype)? _place;

    protected PretrainedModel(PretrainedConfig config) => Config = config;

    public PretrainedConfig Config { get; }

    /// <summary>The folder it was loaded from, its tokenizer's too; null where it was not.</summary>
    public string? Folder { get; private set; }

    /// <summary>The model whose layers this one is made of; null for a model of its own.</summary>
    public PretrainedModel? Origin { get; internal set; }

    /// <summary>The embedding of its vocabulary, the encoder's where it has several; null where it has none.</summary>
    public Embedding? TokenEmbedding => Sites().OfType<Embedding>().Where(embedding => embedding.Count == Config.VocabSize)
        .OrderByDescending(embedding => embedding.Path.Contains("encoder.", StringComparison.Ordinal)).FirstOrDefault();

    /// <summary>Where the weights are, or are to be. Throws for a model that is shapes alone and has no place yet.</summary>
    public Device Device => _place?.Device ?? Weights().First().Value.device;

    /// <summary>Type of the weights and of what flows between them.</summary>
    public ScalarType Dtype => _place?.Dtype ?? Weights().First().Value.dtype;

    /// <summary>Weights of the head that the checkpoint has not got: they were drawn, and mean nothing until they are trained.</summary>
    public IReadOnlyList<Weight> Drawn { get; private set; } = [];

    /// <summary>Vectors of the residual stream have this width.</summary>
    public abstract int HiddenSize { get; }

    /// <summary>Path of the projection that makes logits; "all-linear" leaves it out.</summary>
    public virtual string? OutputHead => null;

    /// <summary>Names that a checkpoint may bring although the model does not use them.</summary>
    protected virtual bool Ignores(string name) => false;

    /// <summary>Name of the body under its head, transformers' <c>base_model_prefix</c>.</summary>
    protected virtual string BasePrefix => "model";

    /// <summary>Names of the head's parts, for a model whose body has no name of its own.</summary>
    protected virtual IReadOnlyCollection<string> HeadNames => [];

    /// <summary>Today's name of a tensor that older checkpoints of the architecture name otherwise.</summary>
    protected virtual string Rename(string name) => name;

    public IEnumerable<Site> Sites() => Modules().OfType<Site>();

    /// <summary>All parameters, a tied one once.</summary>
    public long ParameterCount => Origin is not null ? Origin.ParameterCount : Weights().Where(weight => !weight.IsBuffer).Sum(weight => weight.ElementCount);

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

    /// <summary>Says where a model that is shapes alone would be loaded, for those who plan with it.</summary>
    internal void PlanFor(Device device, ScalarType dtype) => _place = (device, dtype);

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
    /// <paramref name="seed"/>; <paramref name="labels"/> are the classes it is for, where they are not the config's. With
    /// <paramref name="quantization"/> the matrices of the blocks are packed; <paramref name="shared"/> holds what other models of the folder
    /// have loaded of it. Throws <see cref="CheckpointException"/> naming what is missing, unexpected or of the wrong shape.
    /// </summary>
    public static PretrainedModel Load(
        string folder,
        Device device,
        ScalarType dtype,
        ModelHead? head = null,
        int seed = 0,
        IReadOnlyList<string>? labels = null,
        BaseQuantization quantization = BaseQuantization.None,
        SharedTensors? shared = null)
    {
        var config = PretrainedConfig.Read(folder);
        var model = Plan(labels is null ? config : config.WithLabels(labels), head);
        try
        {
            using var checkpoint = Checkpoint.Open(folder);
            var placement = checkpoint.Fill(model.WeightPlan(quantization), device, dtype, shared);
            model.Drawn = placement.Missing;
            model.DrawHead(placement.Missing, device, dtype, seed);
            model.Folder = folder;
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
    public WeightPlan WeightPlan(BaseQuantization quantization = BaseQuantization.None)
    {
        var packable = PackableWeights(quantization);
        return new()
        {
            Weights = [.. Weights()],
            OtherNames = [.. OtherNames()],
            Pieces = Modules().OfType<Experts>().SelectMany(experts => experts.Pieces()).ToDictionary(),
            Rename = name => Rename(LegacyNorm(name)),
            BasePrefix = BasePrefix,
            Ignores = name => Ignores(name) || ((_hasNewHead || this is ClassificationModel { Kind: PredictionKind.Features }) && IsOfHead(Rename(name))),
            MayBeMissing = weight => _hasNewHead && IsOfHead(weight.Path),
            Quantization = weight => packable.Contains(weight) ? quantization : BaseQuantization.None,
        };
    }

    /// <summary>Whether a name is outside of the body, or of its pooler, which comes and goes with the head.</summary>
    private bool IsOfHead(string name)
    {
        var inner = name.StartsWith($"{BasePrefix}.", StringComparison.Ordinal) ? name[(BasePrefix.Length + 1)..] : name;
        var body = Children().FirstOrDefault(child => child.Name == BasePrefix).Module?.Children() ?? Children();
        return inner.StartsWith("pooler.", StringComparison.Ordinal)
            || (inner.Length == name.Length && !body.Any(child => !HeadNames.Contains(child.Name) && (name.StartsWith($"{child.Name}.", StringComparison.Ordinal) || name == child.Name)));
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
            var start = weight.Shape.Count > 1 && !weight.IsBuffer
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

    /// <summary>
    /// What sequences under these adapters must have in common with others to be written in one batch; null where any will do.
    /// </summary>
    internal virtual object? BatchKey(IReadOnlyList<Adapters.Adapter> adapters) => null;
}

/// <summary>A model that continues text.</summary>
public abstract class CausalLanguageModel(PretrainedConfig config) : LanguageModel(config)
{
    public sealed override Tensor Hidden(ForwardBatch batch)
    {
        var stacks = batch.Runs.Select(Stack).ToList();
        if (stacks.TrueForAll(stack => stack == stacks[0]))
        {
            return stacks[0] == this ? Through(batch) : stacks[0].Hidden(batch);
        }

        using var scope = NewDisposeScope();
        var pieces = batch.Runs.Select((run, i) =>
        {
            using var piece = batch.Only(run);
            return stacks[i].Hidden(piece);
        }).ToArray();
        return cat(pieces, 0).MoveToOuterDisposeScope(); // [n, hidden]
    }

    public sealed override Tensor Logits(Tensor hidden, ForwardBatch batch)
    {
        var stacks = batch.Runs.Select(Stack).ToList();
        if (stacks.TrueForAll(stack => stack == stacks[0]))
        {
            return stacks[0] == this ? Scores(hidden, batch) : stacks[0].Logits(hidden, batch);
        }

        using var scope = NewDisposeScope();
        var pieces = batch.Runs.Select((run, i) =>
        {
            using var piece = ForwardBatch.Heads([run], Device, batch.Tasks);
            return stacks[i].Logits(hidden.narrow(0, run.Start, run.Count), piece);
        }).ToArray();
        return cat(pieces, 0).MoveToOuterDisposeScope(); // [m, vocabulary]
    }

    /// <summary>The last hidden state of every token, through this model's own layers.</summary>
    protected abstract Tensor Through(ForwardBatch batch);

    /// <summary>Scores of the next token, by this model's own head.</summary>
    protected abstract Tensor Scores(Tensor hidden, ForwardBatch batch);

    /// <summary>The model that a run of tokens goes through: an adapter may have a deeper one, made of this one's layers.</summary>
    private CausalLanguageModel Stack(AdapterRun run)
    {
        var deeper = run.Adapters.Where(adapter => adapter.Model.Origin == this).ToList();
        return deeper.Count == 0 ? this
            : run.Adapters.Count == 1 ? (CausalLanguageModel)deeper[0].Model
            : throw new NotSupportedException("layer_replication: an adapter on replicated layers works by itself, not with others.");
    }
}

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

    /// <summary>
    /// Encodes texts that a decoder then looks at, under one set of adapters; <paramref name="tasks"/> are the texts', for adapters that know
    /// several. The caller disposes of the result.
    /// </summary>
    public EncodedSource Read(
        IReadOnlyList<int[]> texts, IReadOnlyList<Adapters.Adapter> adapters, Generator? dropout = null, IReadOnlyList<int>? tasks = null)
    {
        var batch = ForwardBatch.Packed(texts, adapters, Device, dropout, tasks, encodes: true);
        try
        {
            return new EncodedSource(batch, GradientCheckpoints.Cut(Encode(batch)), CrossPrefixes(adapters));
        }
        catch
        {
            batch.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Encodes texts together and gives each of them by itself, for sequences that begin at once and end one by one. The caller disposes
    /// of the results.
    /// </summary>
    public IReadOnlyList<EncodedSource> ReadEach(IReadOnlyList<int[]> texts, IReadOnlyList<Adapters.Adapter> adapters, IReadOnlyList<int> tasks)
    {
        using var scope = NewDisposeScope();
        using var batch = ForwardBatch.Packed(texts, adapters, Device, tasks: tasks, encodes: true);
        var hidden = Encode(batch); // [m, hidden]
        return
        [
            .. texts.Select((text, i) => new EncodedSource(
                ForwardBatch.Packed([text], adapters, Device, tasks: [tasks[i]], encodes: true),
                hidden.narrow(0, batch.Starts[i], batch.Starts[i + 1] - batch.Starts[i]).clone(), CrossPrefixes(adapters))),
        ];
    }

    private static IReadOnlyList<AttentionPrefix> CrossPrefixes(IReadOnlyList<Adapters.Adapter> adapters) =>
        [.. adapters.Select(adapter => adapter.CreateCrossPrefix()).OfType<AttentionPrefix>()];
}
