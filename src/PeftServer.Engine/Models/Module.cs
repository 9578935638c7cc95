using System.Collections.Concurrent;
using System.Reflection;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// A part of a model. Its fields of type <see cref="Module"/>, array of modules and <see cref="Weight"/> are its children, and
/// the names of the fields are the names in the checkpoint: a field <c>q_proj</c> of <c>self_attn</c> is
/// <c>…self_attn.q_proj</c>. Nothing is drawn or allocated when a module is made; <see cref="Weight"/> says where tensors go.
/// </summary>
public abstract class Module
{
    private static readonly ConcurrentDictionary<Type, FieldInfo[]> Fields = new();

    /// <summary>Path from the model's root, as Hugging Face names it; empty for the root.</summary>
    public string Path { get; private set; } = "";

    /// <summary>This module and all below it, in the order of their fields.</summary>
    public IEnumerable<Module> Modules() => Children().SelectMany(child => child.Module.Modules()).Prepend(this);

    /// <summary>Every weight of this module and those below; a tied weight comes once.</summary>
    public IEnumerable<Weight> Weights() => Modules().SelectMany(module => module.OwnWeights()).Select(entry => entry.Weight).Distinct();

    /// <summary>The weights that are fields of this very module, by name; the empty name is that of the module itself.</summary>
    public virtual IEnumerable<(string Name, Weight Weight)> OwnWeights() =>
        FieldsOf(GetType()).Select(field => (field.Name, field.GetValue(this) as Weight)).Where(entry => entry.Item2 is not null)!;

    /// <summary>
    /// The names beside its path of each weight that several modules hold. A checkpoint may save a tied weight under any of them.
    /// </summary>
    public IEnumerable<(string Name, Weight Weight)> OtherNames() => Modules()
        .SelectMany(module => module.OwnWeights().Select(entry => (Name: Join(module.Path, entry.Name), entry.Weight)))
        .Where(entry => entry.Name != entry.Weight.Path);

    /// <summary>The module at <paramref name="path"/> below this one; null where there is none.</summary>
    public Module? Find(string path) => Modules().FirstOrDefault(module => module.Path == path);

    /// <summary>Gives every module and weight below its path. Weights shared by two modules keep the first.</summary>
    protected void Name(string path = "")
    {
        Path = path;
        foreach (var (name, weight) in OwnWeights().Where(entry => entry.Weight.Path.Length == 0))
        {
            weight.Path = Join(path, name);
        }

        foreach (var (name, module) in Children())
        {
            module.Name(Join(path, name));
        }
    }

    /// <summary>The modules right below this one, by their names.</summary>
    internal virtual IEnumerable<(string Name, Module Module)> Children()
    {
        foreach (var field in FieldsOf(GetType()))
        {
            switch (field.GetValue(this))
            {
                case Module module:
                    yield return (field.Name, module);
                    break;
                case IReadOnlyList<Module> list:
                    for (var i = 0; i < list.Count; i++)
                    {
                        yield return ($"{field.Name}.{i}", list[i]);
                    }

                    break;
            }
        }
    }

    // Fields with an underscore are a module's own business: not in the checkpoint.
    private static FieldInfo[] FieldsOf(Type type) => Fields.GetOrAdd(type, static type =>
    {
        const BindingFlags Declared = BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;
        var lineage = new Stack<Type>();
        for (var t = type; t is not null && t != typeof(Module); t = t.BaseType)
        {
            lineage.Push(t);
        }

        return [.. lineage.SelectMany(t => t.GetFields(Declared)).Where(field => field.Name[0] is not '_' and not '<')];
    });

    private static string Join(string path, string name) => (path.Length, name.Length) switch
    {
        (0, _) => name,
        (_, 0) => path,
        _ => $"{path}.{name}",
    };
}
