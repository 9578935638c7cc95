using System.Collections.Concurrent;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Reading;

namespace PeftServer.Inference.Reading;

/// <summary>Models that read, as requests name them: base, head and adapter together.</summary>
internal sealed class Readers(ServedModels models)
{
    private readonly ConcurrentDictionary<string, Traits> _adapters = [];

    /// <summary>The model, loaded. Throws what loading throws.</summary>
    public async Task<Reader> LoadAsync(RequestedModel model, CancellationToken cancellationToken)
    {
        var head = model.Head is ModelHead.MaskedLM ? ModelHead.Features : model.Head; // a body that fills masks gives vectors too
        var traits = model.Adapter is { } adapter ? _adapters.GetOrAdd(adapter.Digest, _ => Traits.Read(adapter.Folder, PretrainedConfig.Read(model.Base.Folder))) : new Traits(null, null);
        var served = models.Reader(model.Base, head, traits.Labels);
        var limits = await served.Engine.Loaded.WaitAsync(cancellationToken);
        return new Reader(served, limits with { MaxLength = limits.MaxLength - traits.VirtualTokens, Labels = traits.Labels ?? limits.Labels }, model.Adapter, traits.Settings);
    }

    /// <summary>What an adapter changes of how texts are read.</summary>
    /// <param name="Settings">The adapter's.</param>
    /// <param name="Labels">Names of the classes of its own head; null where it has none.</param>
    private sealed record Traits(AdapterConfig? Settings, IReadOnlyList<string>? Labels)
    {
        /// <summary>Tokens that it puts before every text.</summary>
        public int VirtualTokens => (Settings as PromptConfig)?.NumVirtualTokens ?? 0;

        public static Traits Read(string folder, PretrainedConfig config) => new(AdapterFile.ReadConfig(folder), AdapterLabels.Read(folder, config));
    }
}

/// <summary>A loaded model that reads, as one request uses it.</summary>
/// <param name="Served">Base and head.</param>
/// <param name="Limits">What it takes under the adapter, and what the adapter's scores are called.</param>
/// <param name="Adapter">The adapter; null for the base alone.</param>
/// <param name="Settings">Its settings.</param>
internal sealed record Reader(ServedReader Served, ReadingLimits Limits, AdapterReference? Adapter, AdapterConfig? Settings)
{
    /// <summary>What the model says of each text; all of them go to the engine at once.</summary>
    public async Task<IReadOnlyList<Engine.Reading.Reading>> ReadAsync(IReadOnlyList<TextInput> texts, int task, CancellationToken cancellationToken)
    {
        using var giveUp = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        try
        {
            return await Task.WhenAll(texts.Select(text => Served.Engine.ReadAsync(
                new ReadingRequest { Ids = text.Ids, TypeIds = text.TypeIds, Adapter = Adapter, Task = task }, giveUp.Token)));
        }
        finally
        {
            await giveUp.CancelAsync(); // one that failed fails them all
        }
    }
}
