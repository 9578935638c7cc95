using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Adapters.TrainableTokens;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>
/// One adapter on one model: its settings, its parts at the model's sites, what the parts share. On a model that is shapes
/// alone it is shapes too, which is what counting and checking files need. Disposing of it leaves the model as it was.
/// </summary>
public abstract class Adapter : IDisposable
{
    /// <summary>What stands before the path of a module in PEFT's files.</summary>
    public const string Prefix = "base_model.model.";

    private readonly List<(Site Site, SiteAdapter Part)> _parts = [];

    protected Adapter(AdapterConfig config, PretrainedModel model) => (Config, Model) = (config, model);

    /// <summary>The settings, with every default filled in that depends on the model.</summary>
    public AdapterConfig Config { get; protected init; }

    public PretrainedModel Model { get; }

    public IReadOnlyList<(Site Site, SiteAdapter Part)> Parts => _parts;

    /// <summary>Weights that belong to no single site, by their keys in the file.</summary>
    protected virtual IEnumerable<(string Key, Weight Weight)> Shared => [];

    /// <summary>
    /// What <see cref="Shared"/> is the result of, by the keys PEFT knows it under, where what trains is not what is saved.
    /// </summary>
    protected virtual IEnumerable<(string Key, Weight Weight)> SharedTraining => Shared;

    /// <summary>What <see cref="Shared"/> leads to and is not saved.</summary>
    protected virtual IEnumerable<Weight> SharedDerived => [];

    /// <summary>What stands before the path of a module in this adapter's file.</summary>
    protected virtual string KeyPrefix => Prefix;

    /// <summary>Everything that is kept, by its key in the file.</summary>
    public IEnumerable<(string Key, Weight Weight)> State => Shared.Concat(PartsState);

    /// <summary>What a file holds: <see cref="State"/>, but for parts that write it in another form.</summary>
    internal IEnumerable<(string Key, Weight Weight)> FileState =>
        Shared.Concat(_parts.SelectMany(entry => entry.Part.FileState.Select(state => (KeyOf(entry.Site, state.Name), state.Weight))));

    /// <summary>What training works on: <see cref="State"/>, or what that is the result of.</summary>
    public IEnumerable<(string Key, Weight Weight)> TrainingState => SharedTraining.Concat(PartsState);

    private IEnumerable<(string Key, Weight Weight)> PartsState => _parts.SelectMany(entry => entry.Part.State.Select(state => (KeyOf(entry.Site, state.Name), state.Weight)));

    /// <summary>The settings that go into a file.</summary>
    internal virtual AdapterConfig SavedConfig => Config;

    /// <summary>What goes into a file, by its key there; tensors made for it belong to the caller's scope.</summary>
    internal virtual IEnumerable<(string Key, Tensor Value)> SavedState => Shared.Select(entry => (entry.Key, entry.Weight.Value))
        .Concat(_parts.SelectMany(entry => entry.Part.SavedState.Select(state => (KeyOf(entry.Site, state.Name), state.Value))));

    /// <summary>What training changes besides the trained weights, by name: a run that resumes needs it.</summary>
    internal IEnumerable<(string Name, Tensor Tensor)> Progress =>
        _parts.SelectMany(entry => entry.Part.Progress.Select(state => ($"{entry.Site.Path}.{state.Name}", state.Weight.Value)));

    /// <summary>What an optimizer changes.</summary>
    public IEnumerable<Weight> Trainable => TrainingState.Select(entry => entry.Weight).Where(weight => weight.Trainable).Distinct();

    public long TrainableCount => Trainable.Sum(weight => weight.ElementCount);

    /// <summary>
    /// All parameters as PEFT counts them: the base, what the adapter adds, and the frozen originals beside trainable copies.
    /// </summary>
    public virtual long TotalCount => Model.ParameterCount + UnsavedCount + Counted(SharedTraining)
        + Counted(_parts.Where(entry => entry.Part is not (BaseLayerCopy or TrainableBias)).SelectMany(entry => entry.Part.State));

    /// <summary>Parameters that PEFT has beside those of <see cref="State"/>.</summary>
    protected virtual long UnsavedCount => 0;

    /// <summary>PEFT's <c>print_trainable_parameters</c>, in its words.</summary>
    public string TrainableSummary => FormattableString.Invariant(
        $"trainable params: {TrainableCount:N0} || all params: {TotalCount:N0} || trainable%: {100.0 * TrainableCount / TotalCount:F4}");

    /// <summary>Writes <see cref="TrainableSummary"/>, to the console where no writer is given.</summary>
    public void PrintTrainableParameters(TextWriter? writer = null) => (writer ?? Console.Out).WriteLine(TrainableSummary);

    /// <summary>Rows that this adapter puts before the embeddings of every sequence.</summary>
    public virtual int PromptRows => 0;

    /// <summary>Positions that this adapter takes up before every sequence, with rows or with keys and values.</summary>
    public virtual int VirtualTokens => PromptRows;

    /// <summary>Whether those rows count as positions, so that a sequence's own tokens come after them.</summary>
    public virtual bool PromptTakesPositions => true;

    /// <summary>Tokens among those rows that supervised training learns in every sequence, as it does the sequence's own.</summary>
    public virtual IReadOnlyList<PromptTarget> PromptTargets => [];

    /// <summary>The keys and values that this adapter puts before every sequence's own, made anew; null where it puts none.</summary>
    public virtual AttentionPrefix? CreatePrefix() => null;

    /// <summary>The same for the encoder of an encoder-decoder, whose decoder <see cref="CreatePrefix"/> is for.</summary>
    public virtual AttentionPrefix? CreateEncoderPrefix() => null;

    /// <summary>The same for a decoder's attention to an encoder's texts.</summary>
    public virtual AttentionPrefix? CreateCrossPrefix() => null;

    /// <summary>
    /// How much further on keys seem to be than they are, where a model knows positions by their distance alone: a prefix may move the
    /// keys of a sequence and leave its queries.
    /// </summary>
    public virtual int DistanceShift(bool encodes) => 0;

    /// <summary>
    /// Whether what it does to a token depends on those after it, so that a sequence goes through the model anew with every token it gains:
    /// a gate that is a mean over the sequence, an intervention on its last tokens.
    /// </summary>
    public virtual bool ReadsWholeSequences => false;

    /// <summary>Draws the weights as the method starts, on the device of the model, in float32.</summary>
    public void Initialize(int seed)
    {
        using var frozen = no_grad();
        using var generator = new Generator((ulong)seed);
        using (NewDisposeScope())
        {
            InitializeShared(generator);
        }

        foreach (var (site, part) in _parts)
        {
            using var scope = NewDisposeScope();
            part.Initialize(site, generator);
        }

        Prepare();
    }

    /// <summary>Computes what follows from the saved weights and is not saved itself. Loading and drawing end with it.</summary>
    internal void Prepare()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        PrepareShared();
        foreach (var (site, part) in _parts)
        {
            part.Prepare(site);
        }
    }

    /// <summary>Draws <see cref="Shared"/>.</summary>
    protected virtual void InitializeShared(Generator generator)
    {
    }

    /// <summary>The parts that merging folds into the weights.</summary>
    protected virtual IEnumerable<(Site Site, SiteAdapter Part)> MergeableParts => _parts;

    /// <summary>What goes with this adapter when it is disposed of.</summary>
    protected virtual IEnumerable<Weight> Owned => State.Concat(SharedTraining).Select(entry => entry.Weight);

    /// <summary>Computes <see cref="SharedDerived"/>.</summary>
    protected virtual void PrepareShared()
    {
    }

    /// <summary>What this adapter does around attention, by layer.</summary>
    public virtual IReadOnlyDictionary<int, AttentionPart> AttentionParts { get; } = new Dictionary<int, AttentionPart>();

    /// <summary>Computes what is saved from what trains, where they differ.</summary>
    protected internal virtual void Settle()
    {
    }

    /// <summary>Writes what the method keeps in folders beside its own files.</summary>
    protected internal virtual void SaveBeside(string folder, string baseModelName)
    {
    }

    /// <summary>Makes the weights that train require gradients, or stop requiring them.</summary>
    public virtual void SetTraining(bool training)
    {
        foreach (var (_, part) in training ? _parts : [])
        {
            part.RequireTrainable();
        }

        foreach (var weight in Trainable)
        {
            weight.Value.requires_grad = training;
        }
    }

    /// <summary>Says that <see cref="Progress"/> has been put back to where a run stood.</summary>
    internal void Resume()
    {
        foreach (var (_, part) in _parts)
        {
            part.Resume();
        }
    }

    /// <summary>What the method adds to the loss of a step: a scalar with gradients, or null.</summary>
    public virtual Tensor? Regularization() => null;

    /// <summary>
    /// Hidden states of a batch's tokens, beside the model's own, whose scores supervised training learns too, and what their loss counts; null where
    /// the method has none.
    /// </summary>
    public virtual (Tensor States, double Weight)? SideStates(ForwardBatch batch) => null;

    /// <summary>Called after the optimizer's step number <paramref name="step"/>, from 0, while its gradients are still there.</summary>
    public virtual void AfterStep(int step)
    {
    }

    /// <summary>This adapter, or one that does the same and loads where only its files are; whoever gets another disposes of it.</summary>
    internal virtual Adapter Portable() => this;

    /// <summary>Says that training begins, of <paramref name="totalSteps"/> steps in all.</summary>
    public virtual void BeginTraining(int totalSteps)
    {
    }

    /// <summary>
    /// Folds the adapter into the weights of its model. Afterwards the adapter is detached and the model computes what both did.
    /// Throws <see cref="NotSupportedException"/> before anything changes where a part cannot be merged.
    /// </summary>
    public virtual void MergeAndUnload()
    {
        using var frozen = no_grad();
        using var scope = NewDisposeScope();
        if (Model.Origin is not null)
        {
            throw new NotSupportedException("layer_replication: layers share their weights, so what their adapters add cannot be merged. Serve it unmerged.");
        }

        var mergeable = MergeableParts.ToList();
        mergeable.Where(entry => !entry.Part.MergesIntoTied && entry.Part is not BaseLayerCopy).ToList().ForEach(entry => RefuseTied(entry.Site));
        var merged = mergeable.GroupBy(entry => entry.Site).Select(parts => (
            Site: parts.Key,
            Weight: parts.Aggregate(DenseWeight(parts.Key), (weight, entry) => entry.Part.Merge(parts.Key, weight)),
            Bias: parts.Aggregate(parts.Key.Bias?.Value, (bias, entry) => entry.Part.MergeBias(parts.Key, bias)))).ToList();
        foreach (var (site, weight, bias) in merged)
        {
            if (bias is not null)
            {
                site.Bias!.Set(bias.to(site.Bias.Value.dtype, copy: true));
            }

            var folded = weight.to(site.Weight.Value.dtype, copy: true);
            if (site is Projection projection)
            {
                projection.SetDenseWeight(folded);
            }
            else
            {
                site.Weight.Set(folded);
            }
        }

        Detach();
    }

    public virtual void Dispose()
    {
        Detach();
        foreach (var weight in Owned)
        {
            weight.Unload();
        }

        foreach (var weight in SharedDerived.Concat(_parts.SelectMany(entry => entry.Part.Derived)))
        {
            weight.Unload();
        }

        if (Model.Origin is not null)
        {
            Model.Dispose(); // made for this adapter
        }

        GC.SuppressFinalize(this);
    }

    /// <summary>Puts <paramref name="part"/> at <paramref name="site"/> and names its weights.</summary>
    protected void Attach(Site site, SiteAdapter part)
    {
        foreach (var (name, weight) in part.State.Concat(part.FileState))
        {
            weight.Path = weight.Path.Length == 0 ? KeyOf(site, name) : weight.Path; // a shared one keeps its first
        }

        site.Attach(this, part);
        _parts.Add((site, part));
    }

    /// <summary>
    /// Lets the modules train in full that PEFT's <c>modules_to_save</c> names; with <paramref name="tiesHeads"/> a head that shares the weight of
    /// one follows it.
    /// </summary>
    protected void AttachSavedModules(IReadOnlyList<string>? names, bool tiesHeads = false)
    {
        foreach (var site in Model.Sites().Where(site => TargetModules.IsSaved(site, names)).ToList())
        {
            var heads = tiesHeads && site is Embedding ? TokenRows.Tied(Model, site).ToList() : [];
            var copy = new TrainableCopy(site) { HasTiedHead = heads.Count > 0 };
            Attach(site, copy);
            heads.ForEach(head => Attach(head, new TrainableCopy.TiedHead(copy)));
        }
    }

    private static long Counted(IEnumerable<(string, Weight Weight)> state) =>
        state.Select(entry => entry.Weight).Where(weight => !weight.IsBuffer).Distinct().Sum(weight => weight.ElementCount);

    /// <summary>A parameter's weights are saved under the module that holds it.</summary>
    internal string KeyOf(Site site, string name) => $"{KeyPrefix}{(site is Parameter parameter ? parameter.ModulePath : site.Path)}.{name}";

    private static Tensor DenseWeight(Site site) => site is Projection projection ? projection.DenseWeight() : site.Weight.Value;

    private void RefuseTied(Site site)
    {
        if (Model.Sites().Count(other => ReferenceEquals(other.Weight, site.Weight)) > 1)
        {
            throw new NotSupportedException(
                $"{site.Path} shares its weight with another module, so an adapter on it cannot be merged. Serve it unmerged.");
        }
    }

    /// <summary>Takes every part off the model.</summary>
    protected virtual void Detach()
    {
        foreach (var (site, _) in _parts)
        {
            site.Detach(this);
        }
    }
}
