using System.Text.Json.Nodes;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// The head that trains with an adapter and is saved beside it. A static one is the model's own, trained in full; a flexible one
/// (<see cref="HubPredictionHead"/>) is the library's, and stands in for the model's.
/// </summary>
public abstract class HubHead
{
    /// <summary>What is saved, by its key in the file.</summary>
    internal abstract IEnumerable<(string Key, Weight Weight)> State { get; }

    /// <summary>Parameters that the model without adapters does not have.</summary>
    internal virtual long AddedCount => 0;

    /// <summary>The copies of the model's own head that train.</summary>
    internal virtual IEnumerable<(Site Site, SiteAdapter Part)> Copies => [];

    internal abstract void Initialize(Generator generator, Device device);

    internal virtual void Detach()
    {
    }

    /// <summary>Lets another adapter use the same head.</summary>
    internal virtual void Share(Adapter other)
    {
    }

    /// <summary>Ends what <see cref="Share"/> began.</summary>
    internal virtual void Release(Adapter other)
    {
    }

    /// <summary>The head that <paramref name="config"/> describes, or where there is none, the model's own; null where that does not train.</summary>
    internal static HubHead? Attach(HubAdapter adapter, JsonObject? config)
    {
        if (config?["config"] is JsonObject flexible)
        {
            return HubPredictionHead.Create(adapter, flexible);
        }

        // The library freezes what makes logits over a vocabulary, and trains every other head.
        if (adapter.Model is not ClassificationModel { Kind: PredictionKind.Sequence or PredictionKind.Token or PredictionKind.Span } || adapter.Architecture.Root.Length == 0)
        {
            return null;
        }

        return new StaticHead(adapter, [.. adapter.Model.Sites().Where(site => !site.Path.StartsWith(adapter.Architecture.Root, StringComparison.Ordinal))]);
    }

    /// <summary>The model's own head, as a copy that trains.</summary>
    private sealed class StaticHead : HubHead
    {
        private readonly List<Adapter> _users;
        private readonly List<(Site Site, TrainableCopy Copy)> _sites;

        public StaticHead(Adapter adapter, IReadOnlyList<Site> sites)
        {
            _users = [adapter];
            _sites = [.. sites.Select(site => (site, new TrainableCopy(site)))];
            _sites.ForEach(entry => entry.Site.Attach(adapter, entry.Copy));
        }

        internal override IEnumerable<(Site Site, SiteAdapter Part)> Copies => _sites.Select(entry => (entry.Site, (SiteAdapter)entry.Copy));

        internal override IEnumerable<(string Key, Weight Weight)> State =>
            _sites.SelectMany(entry => entry.Copy.State.Select(state => ($"{entry.Site.Path}.{state.Name}", state.Weight)));

        internal override void Initialize(Generator generator, Device device) => _sites.ForEach(entry => entry.Copy.Initialize(entry.Site, generator));

        internal override void Detach() => _users.ForEach(user => _sites.ForEach(entry => entry.Site.Detach(user)));

        internal override void Share(Adapter other)
        {
            _users.Add(other);
            _sites.ForEach(entry => entry.Site.Attach(other, entry.Copy));
        }

        internal override void Release(Adapter other)
        {
            _users.Remove(other);
            _sites.ForEach(entry => entry.Site.Detach(other));
        }
    }
}
